// What a template may hold: the schema and what is the same in every store. Nothing of a person, nothing secret.

// Rows in any of these would be one tenant's or one shopper's in every store that is made of the template.
const TENANTS = [
  "api_key", "publishable_api_key_sales_channel", "user", "invite", "user_preference", "auth_identity", "provider_identity",
  "customer", "customer_address", "customer_account_holder", "account_holder", "cart", "cart_address", "cart_line_item",
  "order", "order_address", "order_line_item", "order_cart", "payment", "payment_collection", "payment_session",
  "notification", "workflow_execution", "storeplane_setup",
]
const FORBIDDEN = [
  [/\b[ps]k_[0-9a-f]{16,}/, "an API key"],
  [/\bc2NyeXB0A[A-Za-z0-9+/=]{20,}/, "the hash of a password"], // "scrypt" in base64, as Medusa stores it
  [/[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+\.[A-Za-z]{2,}/, "a mail address"],
  [/-----BEGIN [A-Z ]*PRIVATE KEY-----/, "a private key"],
  [/\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\./, "a signed token"],
  [/\b(?:postgres(?:ql)?|rediss?):\/\//, "an address with a password"],
]

// Throws with everything that does not belong in the template; `secrets` are those of the services that made it.
function checkContent(sql, rowCounts, secrets) {
  const found = []
  for (const table of TENANTS) {
    if (rowCounts[table] > 0) found.push(`${rowCounts[table]} rows in ${table}`)
  }
  for (const [pattern, name] of FORBIDDEN) {
    const match = pattern.exec(sql)
    if (match) found.push(`${name}, at character ${match.index}`)
  }
  secrets.forEach((secret, index) => {
    if (sql.includes(secret)) found.push(`secret number ${index + 1} of the build`)
  })
  if (found.length > 0) throw new Error(`the template holds what belongs to one tenant: ${found.join("; ")}`)
  for (const table of ["product", "sales_channel", "mikro_orm_migrations"]) {
    if (!rowCounts[table]) throw new Error(`the template has no rows in ${table}: did the scripts run?`)
  }
}

// Every row's columns, with what differs between two runs replaced: times, ids that are made, and the hash, of which
// the format and the cost stay.
function comparable(row) {
  const shown = {}
  for (const [column, value] of Object.entries(row)) {
    shown[column] = column === "sales_channel_id" ? value : plain(value)
  }
  return shown
}

function plain(value) {
  if (value instanceof Date) return "a time"
  if (typeof value === "string") {
    if (/^c2NyeXB0A/.test(value)) return `a hash ${Buffer.from(value, "base64").subarray(0, 16).toString("hex")}`
    return value.replace(/(^|_)[0-9A-HJKMNP-TV-Z]{26}$/, "$1an id")
  }
  if (value !== null && typeof value === "object") return comparable(value)
  return value
}

module.exports = { checkContent, comparable }
