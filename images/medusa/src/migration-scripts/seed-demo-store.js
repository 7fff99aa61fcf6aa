// The first contents of a store: sales channel, publishable key, four demo products, the administrator.
//
// Medusa runs this once for each database, before the first start makes defaults of its own, and again after a run
// that did not end: every part looks before it makes. One process for all of it, because loading the application
// costs more than the work.
const { ContainerRegistrationKeys, Modules, ProductStatus } = require("@medusajs/framework/utils")
const {
  createApiKeysWorkflow,
  createProductsWorkflow,
  createSalesChannelsWorkflow,
  createUserAccountWorkflow,
  linkSalesChannelsToApiKeyWorkflow,
} = require("@medusajs/medusa/core-flows")

const SALES_CHANNEL = "Default Sales Channel" // the name Medusa itself looks for when it starts
const KEY_TITLE = "Storefront"
const KEY_FORMAT = /^pk_[0-9a-f]{64}$/

const PRODUCTS = [
  { handle: "harbour-mug", title: "Harbour Mug", description: "Stoneware, holds 350 ml.", option: "Glaze", values: ["Sand", "Slate"], eur: 14 },
  { handle: "field-notebook", title: "Field Notebook", description: "96 dotted pages, lies flat.", option: "Cover", values: ["Moss", "Rust"], eur: 9 },
  { handle: "linen-apron", title: "Linen Apron", description: "Washed linen with two pockets.", option: "Size", values: ["S", "L"], eur: 38 },
  { handle: "brass-lamp", title: "Brass Lamp", description: "A desk lamp with a weighted foot.", option: "Plug", values: ["EU", "UK"], eur: 89 },
]

module.exports.default = async function seedDemoStore({ container }) {
  const salesChannelId = await ensureSalesChannel(container)
  await ensurePublishableKey(container, salesChannelId)
  await ensureProducts(container, salesChannelId)
  await ensureAdministrator(container)
}

async function ensureSalesChannel(container) {
  const [existing] = await container.resolve(Modules.SALES_CHANNEL).listSalesChannels({ name: SALES_CHANNEL })
  if (existing) return existing.id
  const { result } = await createSalesChannelsWorkflow(container).run({
    input: { salesChannelsData: [{ name: SALES_CHANNEL, description: "Everything this store sells" }] },
  })
  return result[0].id
}

async function ensurePublishableKey(container, salesChannelId) {
  const token = process.env.PUBLISHABLE_KEY
  if (!KEY_FORMAT.test(token || "")) throw new Error("PUBLISHABLE_KEY must be pk_ and 64 hexadecimal digits")
  const keys = container.resolve(Modules.API_KEY)
  let [key] = await keys.listApiKeys({ title: KEY_TITLE, type: "publishable" })
  if (!key) {
    const { result } = await createApiKeysWorkflow(container).run({
      input: { api_keys: [{ title: KEY_TITLE, type: "publishable", created_by: "" }] },
    })
    key = result[0]
  }
  // Medusa always draws the token itself and offers no way to give it one. Ours is known before the store exists, so
  // nobody has to read it back out of a running store.
  await container
    .resolve(ContainerRegistrationKeys.PG_CONNECTION)("api_key")
    .where({ id: key.id })
    .update({ token, redacted: `${token.slice(0, 6)}***${token.slice(-3)}` })
  await linkSalesChannelsToApiKeyWorkflow(container).run({ input: { id: key.id, add: [salesChannelId] } })
}

async function ensureProducts(container, salesChannelId) {
  const handles = PRODUCTS.map((product) => product.handle)
  const existing = await container.resolve(Modules.PRODUCT).listProducts({ handle: handles }, { select: ["handle"] })
  const known = new Set(existing.map((product) => product.handle))
  const products = PRODUCTS.filter((product) => !known.has(product.handle)).map((product) => ({
    title: product.title,
    handle: product.handle,
    description: product.description,
    status: ProductStatus.PUBLISHED,
    sales_channels: [{ id: salesChannelId }],
    options: [{ title: product.option, values: product.values }],
    variants: product.values.map((value) => ({
      title: value,
      sku: `${product.handle}-${value}`.toUpperCase(),
      manage_inventory: false, // a demo needs no stock, so it never sells out
      options: { [product.option]: value },
      prices: [{ currency_code: "eur", amount: product.eur }],
    })),
  }))
  if (products.length > 0) await createProductsWorkflow(container).run({ input: { products } })
}

async function ensureAdministrator(container) {
  const { ADMIN_EMAIL: email, ADMIN_PASSWORD: password } = process.env
  if (!email || !password) throw new Error("ADMIN_EMAIL and ADMIN_PASSWORD must be set")
  const [user] = await container.resolve(Modules.USER).listUsers({ email })
  if (user) return
  const auth = container.resolve(Modules.AUTH)
  // An interrupted run leaves an identity without a user, and registering it again is refused: take it as it is.
  const [left] = await auth.listProviderIdentities({ entity_id: email, provider: "emailpass" })
  let identityId = left && left.auth_identity_id
  if (!identityId) {
    const { success, error, authIdentity } = await auth.register("emailpass", { body: { email, password } })
    if (!success) throw new Error(`the administrator's log-in was refused: ${error}`)
    identityId = authIdentity.id
  }
  await createUserAccountWorkflow(container).run({ input: { authIdentityId: identityId, userData: { email } } })
}
