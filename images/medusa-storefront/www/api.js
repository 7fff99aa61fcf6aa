// The store's own API, as far as a shopper needs it. Every call has a time limit, and every failure is an Error whose
// message can be shown to a person.
const LIMIT_MILLISECONDS = 20_000
const PAGE = 24
const CART_FIELDS = "fields=*items,*region.countries,+completed_at"

export class ShopError extends Error {
  constructor(message, status = 0) {
    super(message)
    this.status = status
  }
}

async function answerOf(path, options = {}) {
  let response
  try {
    response = await fetch(path, { ...options, signal: AbortSignal.timeout(LIMIT_MILLISECONDS) })
  } catch (error) {
    if (error.name === "TimeoutError") throw new ShopError("The shop takes too long to answer.")
    throw new ShopError("The shop cannot be reached. Are you online?")
  }
  const body = await response.json().catch(() => null)
  if (response.ok && body) return body
  throw new ShopError(sentence(response.status, body), response.status)
}

function sentence(status, body) {
  // An ingress without a server behind it: the shop is being started, or changed.
  if (status >= 502 && status <= 504) return "The shop is not ready at the moment. Please try again soon."
  if (status === 429) return "The shop is very busy. Please wait a moment."
  // A refused request says what is wrong with it; a fault of the shop's says nothing a shopper could use.
  if (status >= 400 && status < 500 && body?.message) return body.message
  return `The shop has a problem right now (${status}).`
}

export async function readConfig() {
  return answerOf("/config.json")
}

export class Api {
  constructor(publishableKey) {
    this.headers = { "x-publishable-api-key": publishableKey, "content-type": "application/json" }
  }

  #get(path) {
    return answerOf(path, { headers: this.headers })
  }

  #post(path, body = {}) {
    return answerOf(path, { method: "POST", headers: this.headers, body: JSON.stringify(body) })
  }

  async regions() {
    return (await this.#get("/store/regions?fields=id,name,currency_code,*countries")).regions
  }

  /** One page of products with their prices, and how many there are in all. */
  async products(regionId, offset) {
    const wanted = `region_id=${encodeURIComponent(regionId)}&limit=${PAGE}&offset=${offset}&order=title`
    return this.#get(`/store/products?${wanted}&fields=*variants.calculated_price`)
  }

  async cart(id) {
    return (await this.#get(`/store/carts/${encodeURIComponent(id)}?${CART_FIELDS}`)).cart
  }

  async newCart(regionId) {
    return (await this.#post(`/store/carts?${CART_FIELDS}`, { region_id: regionId })).cart
  }

  async addItem(cartId, variantId) {
    return (await this.#post(`/store/carts/${cartId}/line-items?${CART_FIELDS}`, { variant_id: variantId, quantity: 1 })).cart
  }

  /** A quantity of 0 takes the line out. */
  async setQuantity(cartId, lineId, quantity) {
    return (await this.#post(`/store/carts/${cartId}/line-items/${lineId}?${CART_FIELDS}`, { quantity })).cart
  }

  async shippingOptions(cartId) {
    return (await this.#get(`/store/shipping-options?cart_id=${cartId}`)).shipping_options
  }

  async paymentProviders(regionId) {
    return (await this.#get(`/store/payment-providers?region_id=${regionId}`)).payment_providers
  }

  /** All that turns a cart into an order, in the order the shop wants it; may be called again after a failure. */
  async placeOrder(cartId, wish) {
    // An earlier call may have been heard though its answer was not: then there is an order, and asking for it again
    // must not begin another. The shop answers a completed cart with its order.
    if (!(await this.cart(cartId)).completed_at) await this.#prepare(cartId, wish)
    const done = await this.#post(`/store/carts/${cartId}/complete`)
    if (done.type === "order") return done.order
    throw new ShopError(done.error?.message ?? "The order was not accepted.")
  }

  async #prepare(cartId, { email, address, shippingOptionId, providerId }) {
    await this.#post(`/store/carts/${cartId}`, { email, shipping_address: address, billing_address: address })
    await this.#post(`/store/carts/${cartId}/shipping-methods`, { option_id: shippingOptionId })
    const { payment_collection: payment } = await this.#post("/store/payment-collections", { cart_id: cartId })
    await this.#post(`/store/payment-collections/${payment.id}/payment-sessions`, { provider_id: providerId })
  }
}
