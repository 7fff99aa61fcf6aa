// What belongs to one tenant alone: the token of the publishable key, and the administrator.
//
// Apart from the demo data, which is the same in every store. It runs after it, by its name, and finds it by name: the
// sales channel that the key opens. Where there is no tenant, as in the making of a template, it is skipped and stays to
// be run. Every part looks before it makes, so that a setup that was killed may run again.
const { ContainerRegistrationKeys, Modules, defineFileConfig } = require("@medusajs/framework/utils")
const {
  createApiKeysWorkflow,
  createUserAccountWorkflow,
  linkSalesChannelsToApiKeyWorkflow,
} = require("@medusajs/medusa/core-flows")

const SALES_CHANNEL = "Default Sales Channel" // as the seed names it
const KEY_TITLE = "Storefront"
const KEY_FORMAT = /^pk_[0-9a-f]{64}$/

defineFileConfig({ path: __filename, isDisabled: () => process.env.PUBLISHABLE_KEY === undefined })

module.exports.default = async function ensureTenant({ container }) {
  await ensurePublishableKey(container)
  await ensureAdministrator(container)
}

async function ensurePublishableKey(container) {
  const token = process.env.PUBLISHABLE_KEY
  if (!KEY_FORMAT.test(token)) throw new Error("PUBLISHABLE_KEY must be pk_ and 64 hexadecimal digits")
  const [salesChannel] = await container.resolve(Modules.SALES_CHANNEL).listSalesChannels({ name: SALES_CHANNEL })
  if (!salesChannel) throw new Error(`there is no sales channel called ${SALES_CHANNEL}, which the seed makes`)
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
  await linkSalesChannelsToApiKeyWorkflow(container).run({ input: { id: key.id, add: [salesChannel.id] } })
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
