// Elements without markup in strings: what a shop's owner wrote is text here, never HTML.

/** An element with properties and children; a property with a dash in its name becomes an attribute. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag)
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue
    if (name.includes("-")) element.setAttribute(name, value)
    else element[name] = value
  }
  element.append(...children.filter((child) => child !== null))
  return element
}

export function byId(id) {
  return document.getElementById(id)
}

/** Tell who listens to the page instead of seeing it. */
export function say(text) {
  byId("said").textContent = text
}

/** Run work while a button is out of use, so that a second press does nothing. */
export async function withBusy(button, work) {
  if (button.disabled) return
  button.disabled = true
  button.setAttribute("aria-busy", "true")
  try {
    await work()
  } finally {
    button.disabled = false
    button.removeAttribute("aria-busy")
  }
}

export function money(amount, currency) {
  return new Intl.NumberFormat(undefined, { style: "currency", currency: currency.toUpperCase() }).format(amount)
}
