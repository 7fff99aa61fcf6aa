// Buys one item from a shop with Medusa's own SDK, as a storefront would, then finds the order as the shop's administrator.
//
//   stdin   {"url", "publishableKey", "email", "admin": {"email", "password"}}
//   stdout  {"products", "cart", "shippingOptions", "order", "adminOrders"}: what the shop answered at each step
//
// A step that is refused ends it with exit code 1 and the shop's own words on stderr.
import dns from "node:dns"
import { text } from "node:stream/consumers"

import Medusa from "@medusajs/js-sdk"

const ADDRESS = {
  first_name: "Ada",
  last_name: "Byron",
  address_1: "Market Square 2",
  city: "Bremen",
  country_code: "de",
  postal_code: "28195",
}
const PAYMENT_PROVIDER = "pp_system_default"
const LIMIT_MILLISECONDS = 120_000

// Names below localhost are the loopback's, but not every machine's resolver knows.
const lookup = dns.lookup
dns.lookup = (name, options, callback) => {
  if (!name.endsWith(".localhost")) return lookup(name, options, callback)
  const found = { address: "127.0.0.1", family: 4 }
  return options.all ? callback(null, [found]) : callback(null, found.address, found.family)
}

async function buy({ url, publishableKey, email, admin }) {
  const sdk = new Medusa({ baseUrl: url, publishableKey, auth: { type: "jwt", jwtTokenStorageMethod: "memory" } })
  const { regions } = await sdk.store.region.list()
  const region = regions.find((each) => each.countries.some((country) => country.iso_2 === ADDRESS.country_code))
  if (!region) throw new Error(`no region delivers to ${ADDRESS.country_code}`)

  const { products } = await sdk.store.product.list({ region_id: region.id, fields: "*variants.calculated_price" })
  const { cart: empty } = await sdk.store.cart.create({ region_id: region.id })
  await sdk.store.cart.createLineItem(empty.id, { variant_id: products[0].variants[0].id, quantity: 2 })
  await sdk.store.cart.update(empty.id, { email, shipping_address: ADDRESS, billing_address: ADDRESS })

  const { shipping_options: shippingOptions } = await sdk.store.fulfillment.listCartOptions({ cart_id: empty.id })
  if (shippingOptions.length === 0) throw new Error("no shipping option for the cart")
  const { cart } = await sdk.store.cart.addShippingMethod(empty.id, { option_id: shippingOptions[0].id })
  await sdk.store.payment.initiatePaymentSession(cart, { provider_id: PAYMENT_PROVIDER })
  const completed = await sdk.store.cart.complete(cart.id)
  if (completed.type !== "order") throw new Error(`no order came of it: ${JSON.stringify(completed.error)}`)

  await sdk.auth.login("user", "emailpass", admin)
  const { orders: adminOrders } = await sdk.admin.order.list({ fields: "id,email,total,currency_code,*items" })
  return { products, cart, shippingOptions, order: completed.order, adminOrders }
}

setTimeout(() => {
  console.error(`the shop took more than ${LIMIT_MILLISECONDS / 1000} s`)
  process.exit(1)
}, LIMIT_MILLISECONDS).unref()

try {
  console.log(JSON.stringify(await buy(JSON.parse(await text(process.stdin)))))
} catch (error) {
  console.error(`${error.message} ${error.status ?? ""}`.trim())
  console.error(error.stack)
  process.exit(1)
}
