// The cart: remembered by its id in this browser, shown in a dialog, and turned into an order there.
import { ShopError } from "./api.js"
import { byId, make, money, say, withBusy } from "./dom.js"

const REMEMBERED = "cart"
const NOT_FOUND = 404
const FIELDS = [
  ["email", "E-mail", { type: "email", autocomplete: "email" }],
  ["first_name", "First name", { autocomplete: "given-name", half: true }],
  ["last_name", "Last name", { autocomplete: "family-name", half: true }],
  ["address_1", "Street and number", { autocomplete: "address-line1" }],
  ["postal_code", "Postal code", { autocomplete: "postal-code", half: true }],
  ["city", "City", { autocomplete: "address-level2", half: true }],
]

export class Cart {
  #api
  #region
  #cart = null
  #turn = Promise.resolve()
  #body = byId("cart-body")
  #dialog = byId("cart")

  constructor(api, region) {
    this.#api = api
    this.#region = region
    byId("open-cart").addEventListener("click", () => this.show())
    byId("close-cart").addEventListener("click", () => this.#dialog.close())
    // A press beside the panel lands on the dialog itself.
    this.#dialog.addEventListener("click", (event) => event.target === this.#dialog && this.#dialog.close())
    byId("open-cart").disabled = false
  }

  /** Take up the cart of an earlier visit. A shop that does not answer now is asked again by the first addition. */
  async restore() {
    await this.#alone(() => this.#takeUp()).catch(() => {})
  }

  async add(variantId) {
    await this.#alone(async () => {
      await this.#ensure()
      try {
        this.#keep(await this.#api.addItem(this.#cart.id, variantId))
      } catch (error) {
        if (!(error instanceof ShopError) || !(await this.#isOver())) throw error
        // Removed, or ordered in another window: begin a new one.
        this.#cart = null
        forget()
        await this.#ensure()
        this.#keep(await this.#api.addItem(this.#cart.id, variantId))
      }
    })
  }

  /** Open the dialog on the lines, with a problem above them if there is one. */
  show(problem = "") {
    this.#showLines()
    tell(problem)
    if (!this.#dialog.open) this.#dialog.showModal()
    byId("cart-title").focus()
  }

  /** One after the other: two quick presses would each make a cart, and an answer out of turn shows an old one. */
  #alone(work) {
    const mine = this.#turn.then(work)
    this.#turn = mine.catch(() => {})
    return mine
  }

  async #takeUp() {
    const id = remembered()
    if (!id) return
    try {
      const cart = await this.#api.cart(id)
      if (cart.completed_at) forget()
      else this.#keep(cart)
    } catch (error) {
      // Anything else may be over in a minute, and the cart with it would be lost.
      if (error.status !== NOT_FOUND) throw error
      forget()
    }
  }

  async #isOver() {
    try {
      return Boolean((await this.#api.cart(this.#cart.id)).completed_at)
    } catch (error) {
      return error.status === NOT_FOUND
    }
  }

  async #ensure() {
    if (this.#cart) return
    await this.#takeUp()
    if (!this.#cart) this.#keep(await this.#api.newCart(this.#region.id))
  }

  #keep(cart) {
    this.#cart = cart
    remember(cart.id)
    this.#showCount()
  }

  #showCount() {
    const count = (this.#cart?.items ?? []).reduce((sum, item) => sum + item.quantity, 0)
    byId("count").textContent = count
    byId("count-text").textContent = count === 0 ? ", empty" : `, ${count} ${count === 1 ? "item" : "items"}`
  }

  #showLines() {
    byId("cart-title").textContent = "Your cart"
    const items = this.#cart?.items ?? []
    if (items.length === 0) {
      this.#body.replaceChildren(make("p", {}, "It is empty so far."))
      return
    }
    const checkout = make("button", { type: "button" }, "Go to checkout")
    checkout.addEventListener("click", () => withBusy(checkout, () => this.#trying(() => this.#showCheckout())))
    const sum = make(
      "dl",
      { className: "sums" },
      make("dt", {}, "Items"),
      make("dd", {}, this.#money(this.#cart.item_total)),
    )
    const lines = make("ul", { className: "lines" }, ...[...items].sort(byAge).map((item) => this.#line(item)))
    this.#body.replaceChildren(lines, sum, checkout)
  }

  #line(item) {
    const name = item.product_title ?? item.title
    const step = (label, quantity, text) => {
      const button = make("button", { type: "button", className: "step", "aria-label": `${label}: ${name}` }, text)
      button.addEventListener("click", () => withBusy(button, () => this.#trying(() => this.#change(item, quantity, label))))
      return button
    }
    return make(
      "li",
      {},
      make("span", {}, name, " ", make("span", { className: "variant" }, item.variant_title ?? "")),
      make("span", { className: "right" }, this.#money(item.total)),
      make(
        "span",
        { className: "amount" },
        step(item.quantity === 1 ? "Remove" : "One less", item.quantity - 1, item.quantity === 1 ? "✕" : "−"),
        make("output", {}, item.quantity),
        step("One more", item.quantity + 1, "+"),
      ),
    )
  }

  async #change(item, quantity, label) {
    await this.#alone(async () => this.#keep(await this.#api.setQuantity(this.#cart.id, item.id, quantity)))
    this.#showLines()
    say(quantity === 0 ? `${item.product_title} removed.` : `${item.product_title}: ${quantity}.`)
    // The line was drawn anew: whoever used the keyboard is put back on the same button.
    const same = [...this.#body.querySelectorAll("button.step")].find(
      (button) => button.getAttribute("aria-label") === `${label}: ${item.product_title ?? item.title}`,
    )
    ;(same ?? byId("cart-title")).focus()
  }

  async #showCheckout() {
    const [options, providers] = await Promise.all([
      this.#api.shippingOptions(this.#cart.id),
      this.#api.paymentProviders(this.#region.id),
    ])
    if (options.length === 0) throw new ShopError("This shop has no way of delivery for these items yet.")
    if (providers.length === 0) throw new ShopError("This shop has no way of payment yet.")
    byId("cart-title").textContent = "Checkout"
    const send = make("button", {}, "Place the order")
    const sums = make("dl", { className: "sums" })
    const form = make(
      "form",
      {},
      ...FIELDS.map(field),
      field(["country_code", "Country", { autocomplete: "country", choices: countries(this.#region) }]),
      delivery(options, this.#currency, () => this.#showSums(sums, chosen(options, form))),
      sums,
      make("p", { className: "small" }, "Nothing is charged now: the shop settles the payment with you."),
      send,
    )
    form.addEventListener("submit", (event) => {
      event.preventDefault()
      withBusy(send, () => this.#trying(() => this.#order(form, options, providers[0].id)))
    })
    const back = make("button", { type: "button", className: "plain" }, "← Back to the cart")
    back.addEventListener("click", () => this.show())
    this.#body.replaceChildren(back, form)
    this.#showSums(sums, options[0])
    form.elements.email.focus()
  }

  #showSums(list, option) {
    const row = (name, amount, kind = "") => [
      make("dt", { className: kind }, name),
      make("dd", { className: kind }, this.#money(amount)),
    ]
    const items = this.#cart.item_total
    list.replaceChildren(
      ...row("Items", items),
      ...row("Delivery", option.amount),
      ...row("Total", items + option.amount, "total"),
    )
  }

  async #order(form, options, providerId) {
    const { email, shipping: _, ...address } = Object.fromEntries(new FormData(form))
    const shippingOptionId = chosen(options, form).id
    const order = await this.#api.placeOrder(this.#cart.id, { email, address, shippingOptionId, providerId })
    this.#cart = null
    forget()
    this.#showCount()
    byId("cart-title").textContent = "Thank you"
    const done = make("button", { type: "button" }, "Back to the shop")
    done.addEventListener("click", () => this.#dialog.close())
    this.#body.replaceChildren(
      make("p", {}, `Your order${order.display_id ? ` number ${order.display_id}` : ""} is with the shop.`),
      make("p", {}, `${money(order.total, order.currency_code)} in all, for ${order.email}.`),
      done,
    )
    say("Your order is with the shop.")
    byId("cart-title").focus()
  }

  async #trying(work) {
    tell("")
    try {
      await work()
    } catch (error) {
      tell(error.message)
    }
  }

  get #currency() {
    return this.#cart.currency_code ?? this.#region.currency_code
  }

  #money(amount) {
    return money(amount, this.#currency)
  }
}

function tell(problem) {
  byId("cart-problem").textContent = problem
  byId("cart-problem").hidden = problem === ""
}

function field([name, label, { half, choices, ...properties }]) {
  const input = choices
    ? make("select", { name, required: true, ...properties }, ...choices)
    : make("input", { name, required: true, maxLength: 200, ...properties })
  return make("label", { className: half ? "half" : "" }, label, input)
}

function countries(region) {
  const home = new Intl.Locale(navigator.language).region?.toLowerCase()
  return [...region.countries]
    .sort((a, b) => a.display_name.localeCompare(b.display_name))
    .map((each) => make("option", { value: each.iso_2, selected: each.iso_2 === home }, each.display_name))
}

function delivery(options, currency, onChange) {
  const rows = options.map((option, index) => {
    const input = make("input", { type: "radio", name: "shipping", value: option.id, checked: index === 0 })
    input.addEventListener("change", onChange)
    const price = make("span", { className: "price" }, money(option.amount, currency))
    return make("label", {}, input, option.name, price)
  })
  return make("fieldset", {}, make("legend", {}, "Delivery"), ...rows)
}

function chosen(options, form) {
  return options.find((option) => option.id === form.elements.shipping.value) ?? options[0]
}

function byAge(one, other) {
  return String(one.created_at).localeCompare(String(other.created_at)) || one.id.localeCompare(other.id)
}

// Some browsers refuse to remember anything; the cart then lives as long as the page.
function remembered() {
  try {
    return localStorage.getItem(REMEMBERED)
  } catch {
    return null
  }
}

function remember(id) {
  try {
    localStorage.setItem(REMEMBERED, id)
  } catch {
    // Said above.
  }
}

function forget() {
  try {
    localStorage.removeItem(REMEMBERED)
  } catch {
    // Said above.
  }
}
