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

/** Run work, during which the button ignores presses. It is not disabled: that would take the keyboard's focus away. */
export async function withBusy(button, work) {
  if (button.getAttribute("aria-busy") === "true") return
  button.setAttribute("aria-busy", "true")
  try {
    await work()
  } finally {
    button.removeAttribute("aria-busy")
  }
}

export function money(amount, currency) {
  return new Intl.NumberFormat(undefined, { style: "currency", currency: currency.toUpperCase() }).format(amount)
}
