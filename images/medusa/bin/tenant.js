// The rows of one tenant, written into a database that has just been restored: publishable key and administrator.
//
// They are the rows that src/migration-scripts/tenant.js has Medusa write, without loading Medusa, which takes longer
// than all the rest of a setup. Nobody keeps them alike by hand: the image's build has both write them and compares
// every column, and then logs in and asks for products with them, so that a Medusa that writes them otherwise cannot
// become an image. Their sources in Medusa: auth-emailpass (the hash), auth (the identities), user, api-key (the
// redacted token), link-modules (the key's sales channel).
const KEY_FORMAT = /^pk_[0-9a-f]{64}$/
const HASH = { logN: 15, r: 8, p: 1 } // what auth-emailpass uses when it is not configured
const SCRIPT = "tenant.js"
const SALES_CHANNEL = "Default Sales Channel"
const KEY_TITLE = "Storefront"

// Computed apart from the writing: a tenth of a second in which the database may still be starting.
async function tenantRows({ publishableKey, email, password }) {
  if (!KEY_FORMAT.test(publishableKey)) throw new Error("PUBLISHABLE_KEY must be pk_ and 64 hexadecimal digits")
  const { ulid } = require("ulid")
  const scrypt = require("scrypt-kdf")
  const hash = (await scrypt.kdf(password, HASH)).toString("base64")
  return {
    keyId: `apk_${ulid()}`,
    linkId: `pksc_${ulid()}`,
    token: publishableKey,
    redacted: `${publishableKey.slice(0, 6)}***${publishableKey.slice(-3)}`,
    userId: `user_${ulid()}`,
    identityId: `authid_${ulid()}`,
    providerIdentityId: ulid(),
    email,
    hash,
  }
}

// Joins the caller's transaction.
async function writeTenant(client, rows) {
  const { rows: channels } = await client.query(
    "select id from public.sales_channel where name = $1 and deleted_at is null",
    [SALES_CHANNEL]
  )
  if (channels.length !== 1) throw new Error(`the template has ${channels.length} sales channels called ${SALES_CHANNEL}, not one`)
  await client.query(
    "insert into public.api_key (id, token, salt, redacted, title, type, created_by) values ($1, $2, '', $3, $4, 'publishable', '')",
    [rows.keyId, rows.token, rows.redacted, KEY_TITLE]
  )
  await client.query(
    "insert into public.publishable_api_key_sales_channel (publishable_key_id, sales_channel_id, id) values ($1, $2, $3)",
    [rows.keyId, channels[0].id, rows.linkId]
  )
  await client.query('insert into public."user" (id, email) values ($1, $2)', [rows.userId, rows.email])
  await client.query("insert into public.auth_identity (id, app_metadata) values ($1, $2)", [
    rows.identityId,
    JSON.stringify({ user_id: rows.userId }),
  ])
  await client.query(
    "insert into public.provider_identity (id, entity_id, provider, auth_identity_id, provider_metadata) " +
      "values ($1, $2, 'emailpass', $3, $4)",
    [rows.providerIdentityId, rows.email, rows.identityId, JSON.stringify({ password: rows.hash })]
  )
  // As if the script had run: an upgrade must not make an administrator again whom the tenant has removed.
  await client.query(
    "insert into public.script_migrations (script_name, created_at, finished_at) values ($1, now(), now())",
    [SCRIPT]
  )
}

module.exports = { tenantRows, writeTenant }
