// Setting up an empty database from the template that the image's build has made: the schema after all migrations and
// the demo data, nothing of a tenant.
const fs = require("node:fs")
const path = require("node:path")
const zlib = require("node:zlib")
const { inTransaction, record } = require("./database")
const { say } = require("./journal")
const { writeTenant } = require("./tenant")

const FOLDER = path.join(__dirname, "..", "template")
// Everything that could be somebody's: an extension's view is enough to leave the database to the migrations.
const RELATIONS = `
  select count(*)::int as count, min(n.nspname || '.' || c.relname) as example
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  where n.nspname <> 'information_schema' and n.nspname !~ '^pg_' and c.relkind in ('r', 'p', 'v', 'm', 'S', 'f')`

// The dump as one text, and the names of the migrations that are in it.
function readTemplate() {
  const sql = zlib.gunzipSync(fs.readFileSync(path.join(FOLDER, "template.sql.gz"))).toString("utf8")
  const { migrations } = JSON.parse(fs.readFileSync(path.join(FOLDER, "migrations.json"), "utf8"))
  return { sql, migrations }
}

// Restores into an empty database and says true; leaves any other alone and says false. The caller holds the setup's
// lock, so what is empty stays so. One transaction with the tenant's rows and the record: a setup that is killed at any
// line leaves an empty database, which the next one restores into again.
async function restoreWhenEmpty(client, template, tenant, revision) {
  const { rows } = await client.query(RELATIONS)
  const { count, example } = rows[0]
  if (count > 0) {
    say(`the database is not empty (${count} relations, such as ${example}): migrating it, no template`)
    return false
  }
  say(`the database is empty: restoring the template with its ${template.migrations.length} migrations, no migrating`)
  await inTransaction(client, async () => {
    await client.query(template.sql)
    await client.query("reset search_path") // the dump empties it
    say("restored")
    await writeTenant(client, await tenant)
    await record(client, revision)
  })
  return true
}

module.exports = { readTemplate, restoreWhenEmpty }
