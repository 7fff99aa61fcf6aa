// The page of products, and what connects it with the cart.
import { Api, readConfig } from "./api.js"
import { Cart } from "./cart.js"
import { byId, make, money, say, withBusy } from "./dom.js"

const WAITING_CARDS = 4
const shelf = byId("products")
const more = byId("more")
const state = { api: null, region: null, cart: null, shown: 0 }

async function open() {
  byId("problem").hidden = true
  byId("empty").hidden = true
  state.shown = 0
  showWaiting()
  try {
    const { publishableKey, title } = await readConfig()
    if (title) {
      document.title = title
      byId("title").textContent = title
    }
    state.api = new Api(publishableKey)
    const regions = await state.api.regions()
    if (regions.length === 0) throw new Error("This shop does not deliver anywhere yet.")
    state.region = regionOf(regions)
    byId("delivery").textContent = delivery(state.region)
    await showProducts()
    // A second try keeps the cart: its listeners are on the page already.
    state.cart ??= new Cart(state.api, state.region)
    await state.cart.restore()
  } catch (error) {
    shelf.replaceChildren()
    byId("problem-text").textContent = error.message
    byId("problem").hidden = false
  } finally {
    shelf.setAttribute("aria-busy", "false")
  }
}

/** The region of the browser's country where there is one, else the first. */
function regionOf(regions) {
  const country = new Intl.Locale(navigator.language).region?.toLowerCase()
  return regions.find((region) => region.countries.some((each) => each.iso_2 === country)) ?? regions[0]
}

function delivery(region) {
  const names = region.countries.map((country) => country.display_name).sort((a, b) => a.localeCompare(b))
  return names.length > 0 ? `Delivered to ${new Intl.ListFormat("en").format(names)}.` : ""
}

function showWaiting() {
  shelf.setAttribute("aria-busy", "true")
  shelf.replaceChildren(
    ...Array.from({ length: WAITING_CARDS }, () => make("li", { className: "card waiting", "aria-hidden": "true" })),
  )
}

async function showProducts() {
  const { products, count } = await state.api.products(state.region.id, state.shown)
  const cards = products.map(card)
  if (state.shown === 0) shelf.replaceChildren(...cards)
  else shelf.append(...cards)
  state.shown += products.length
  byId("empty").hidden = state.shown > 0
  more.hidden = state.shown >= count || products.length === 0
}

function card(product) {
  const price = make("p", { className: "price" })
  const button = make("button", { type: "button", "aria-label": `Add ${product.title} to the cart` }, "Add to cart")
  const variants = product.variants ?? []
  const choice = make(
    "select",
    { "aria-label": `Variant of ${product.title}` },
    ...variants.map((variant) => make("option", { value: variant.id }, variant.title)),
  )
  const chosen = () => variants.find((variant) => variant.id === choice.value)
  const show = () => {
    const found = chosen()?.calculated_price
    const isPriced = Number.isFinite(found?.calculated_amount)
    price.textContent = isPriced ? money(found.calculated_amount, found.currency_code) : "Not for sale at the moment"
    button.disabled = !isPriced
  }
  choice.addEventListener("change", show)
  button.addEventListener("click", () => withBusy(button, () => add(product, chosen())))
  show()
  const buy = make("div", { className: "buy" }, variants.length > 1 ? choice : null, button)
  const text = make(
    "div",
    { className: "text" },
    make("h3", {}, product.title),
    product.description ? make("p", {}, product.description) : null,
    price,
    buy,
  )
  return make("li", { className: "card" }, picture(product), text)
}

/** The product's own picture, or its letter on a colour that is always the same for it. */
function picture(product) {
  const frame = make("div", { className: "picture", "aria-hidden": "true" })
  let hue = 0
  for (const character of product.handle ?? "") hue = (hue * 31 + character.codePointAt(0)) % 360
  frame.style.setProperty("--hue", hue)
  const letter = make("span", {}, (product.title ?? "").slice(0, 1).toUpperCase())
  if (!product.thumbnail) {
    frame.append(letter)
    return frame
  }
  const image = make("img", { src: product.thumbnail, alt: "", loading: "lazy" })
  image.addEventListener("error", () => image.replaceWith(letter))
  frame.append(image)
  return frame
}

async function add(product, variant) {
  try {
    await state.cart.add(variant.id)
    say(`${product.title} is in your cart.`)
  } catch (error) {
    say(error.message)
    state.cart.show(error.message)
  }
}

byId("again").addEventListener("click", () => withBusy(byId("again"), open))
more.addEventListener("click", () =>
  withBusy(more, async () => {
    const before = shelf.children.length
    try {
      await showProducts()
      // The keyboard goes on where the new ones begin, not on a button that may be gone.
      shelf.children[before]?.querySelector("select, button")?.focus()
    } catch (error) {
      say(error.message)
    }
  }),
)
await open()
