#!/usr/bin/env node
// Makes, while the image is built, what a new store begins with, and proves it on the real thing.
//
//   template.sql.gz  the database after all migrations and demo scripts, with nothing of a tenant
//   migrations.json  the versions and the names of the migrations that are in it
//   modules.json     the modules of a started server in the order they were loaded, and where each name led
//
// The proof: a setup that is killed while it restores leaves an empty database; the next one restores; its tenant's rows
// equal those that Medusa writes itself; the server that starts on them lets the administrator in and shows products.
const { spawn } = require("node:child_process")
const crypto = require("node:crypto")
const fs = require("node:fs")
const { createRequire } = require("node:module")
const os = require("node:os")
const path = require("node:path")
const { setTimeout: delay } = require("node:timers/promises")
const { isDeepStrictEqual } = require("node:util")
const zlib = require("node:zlib")
const { checkContent, comparable } = require("./content")
const { freePort, run, startPostgres, startRedis, stopped } = require("./services")

const [SERVER, PROGRAMS] = process.argv.slice(2)
const OUTPUT = path.join(SERVER, "template")
const WAIT_SECONDS = 180
const TENANT_TABLES = ["api_key", "publishable_api_key_sales_channel", "user", "auth_identity", "provider_identity"]
const { Client } = createRequire(path.join(SERVER, "package.json"))("pg")

const random = () => crypto.randomBytes(24).toString("hex")
const SECRETS = { JWT_SECRET: random(), COOKIE_SECRET: random() }
const TENANT = {
  PUBLISHABLE_KEY: `pk_${crypto.randomBytes(32).toString("hex")}`,
  ADMIN_EMAIL: "admin@proof.example",
  ADMIN_PASSWORD: random(),
  SETUP_REVISION: "proof",
}

async function queried(url, text) {
  const client = new Client({ connectionString: url })
  await client.connect()
  try {
    return (await client.query(text)).rows
  } finally {
    await client.end()
  }
}

async function eventually(name, attempt) {
  const until = Date.now() + WAIT_SECONDS * 1000
  for (;;) {
    const found = await attempt()
    if (found) return found
    if (Date.now() > until) throw new Error(`${name}: not within ${WAIT_SECONDS} s`)
    await delay(20)
  }
}

function store(command, environment) {
  return run(process.execPath, ["bin/store.js", command], { cwd: SERVER, env: environment })
}

async function rowCounts(url) {
  const tables = await queried(url, "select tablename as name from pg_tables where schemaname = 'public'")
  const counts = {}
  for (const { name } of tables) {
    counts[name] = (await queried(url, `select count(*)::int as count from public."${name}"`))[0].count
  }
  return counts
}

async function dump(url, secrets) {
  const sql = run(path.join(PROGRAMS, "pg_dump"), [
    "--no-owner", "--no-privileges", "--no-comments", "--inserts", "--rows-per-insert=500", `--dbname=${url}`,
  ]).replace(/^\\.*$/gm, "") // what only psql understands
  checkContent(sql, await rowCounts(url), secrets)
  const migrations = await queried(url, "select name from mikro_orm_migrations order by name")
  const { version } = JSON.parse(fs.readFileSync(path.join(SERVER, "node_modules/@medusajs/medusa/package.json"), "utf8"))
  fs.writeFileSync(path.join(OUTPUT, "template.sql.gz"), zlib.gzipSync(sql, { level: 9 }))
  fs.writeFileSync(
    path.join(OUTPUT, "migrations.json"),
    `${JSON.stringify({ medusa: version, migrations: migrations.map((each) => each.name) }, null, 1)}\n`
  )
  console.log(`template: ${sql.length} characters, ${migrations.length} migrations of Medusa ${version}`)
}

// Kills a setup in the middle of its restore, and sees that nothing of it is left.
async function killRestore(url, environment) {
  const child = spawn(process.execPath, ["bin/store.js", "setup"], { cwd: SERVER, env: environment, stdio: "ignore" })
  const others = "from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
  await eventually("the restore begins", async () => {
    if (child.exitCode !== null) throw new Error("the setup ended before it could be killed")
    const [{ count }] = await queried(url, `select count(*)::int ${others} and state = 'active' and query like '%PostgreSQL database dump%'`)
    return count > 0
  })
  child.kill("SIGKILL")
  await eventually("its connection ends", async () => (await queried(url, `select count(*)::int ${others}`))[0].count === 0)
  const left = Object.keys(await rowCounts(url))
  if (left.length > 0) throw new Error(`a killed restore left ${left.length} tables`)
  console.log("a killed restore left an empty database")
}

async function compare(migrated, restored) {
  for (const table of TENANT_TABLES) {
    const [theirs, ours] = await Promise.all(
      [migrated, restored].map(async (url) => (await queried(url, `select * from public."${table}"`)).map(comparable))
    )
    if (theirs.length !== 1 || !isDeepStrictEqual(theirs, ours)) {
      throw new Error(`${table}: Medusa writes\n${JSON.stringify(theirs)}\nand bin/tenant.js\n${JSON.stringify(ours)}`)
    }
  }
  const [user] = await queried(restored, 'select id from public."user"')
  const [identity] = await queried(restored, "select id, app_metadata from public.auth_identity")
  const [provided] = await queried(restored, "select auth_identity_id from public.provider_identity")
  if (identity.app_metadata.user_id !== user.id || provided.auth_identity_id !== identity.id) {
    throw new Error("the administrator's rows do not lead to each other")
  }
  const [before, after] = [await rowCounts(migrated), await rowCounts(restored)]
  if (!isDeepStrictEqual(before, after)) throw new Error(`a restored database has other rows: ${JSON.stringify({ before, after })}`)
  console.log("a restored database has the rows of a migrated one")
}

async function answer(port, way, { method = "GET", headers = {}, body } = {}) {
  const response = await fetch(`http://127.0.0.1:${port}${way}`, {
    method,
    headers: { ...headers, ...(body ? { "content-type": "application/json" } : {}) },
    body: body && JSON.stringify(body),
  })
  return { status: response.status, body: await response.json().catch(() => undefined) }
}

// Serves, and proves by HTTP what a store is for.
async function serve(environment, flags = []) {
  const port = await freePort()
  const log = fs.openSync(path.join(os.tmpdir(), "serve.log"), "w")
  const child = spawn(process.execPath, [...flags, "bin/store.js", "serve"], {
    cwd: SERVER, env: { ...environment, PORT: String(port) }, stdio: ["ignore", log, log],
  })
  try {
    await eventually("the server answers", async () => {
      if (child.exitCode !== null) throw new Error(`it ended:\n${fs.readFileSync(path.join(os.tmpdir(), "serve.log"), "utf8")}`)
      return fetch(`http://127.0.0.1:${port}/health`).then((response) => response.ok, () => false)
    })
    const key = { "x-publishable-api-key": TENANT.PUBLISHABLE_KEY }
    const shown = await answer(port, "/store/products", { headers: key })
    const refused = await answer(port, "/store/products")
    const login = await answer(port, "/auth/user/emailpass", {
      method: "POST", body: { email: TENANT.ADMIN_EMAIL, password: TENANT.ADMIN_PASSWORD },
    })
    const wrong = await answer(port, "/auth/user/emailpass", { method: "POST", body: { email: TENANT.ADMIN_EMAIL, password: "x" } })
    const me = await answer(port, "/admin/users/me", { headers: { authorization: `Bearer ${login.body?.token}` } })
    const found = [shown.status, shown.body?.products?.length > 0, refused.status, login.status, wrong.status, me.status, me.body?.user?.email]
    const expected = [200, true, 400, 200, 401, 200, TENANT.ADMIN_EMAIL]
    if (!isDeepStrictEqual(found, expected)) throw new Error(`the store answers ${found}, not ${expected}`)
    console.log(`key and administrator work, ${shown.body.products.length} products`)
  } finally {
    await stopped(child, "SIGTERM") // a regular end, in which it writes the list of modules
  }
}

async function make(postgres, redis) {
  const secrets = [postgres.password, redis.password, ...Object.values(SECRETS), ...Object.values(TENANT).slice(0, 3)]
  const base = { PATH: process.env.PATH, HOME: os.tmpdir(), NODE_ENV: "production", MEDUSA_DISABLE_TELEMETRY: "true", ...SECRETS }
  const environment = (name) => ({ ...base, DATABASE_URL: postgres.url(name), REDIS_URL: redis.url, PUBLIC_URL: "http://proof.example" })
  const tenant = (name) => ({ ...environment(name), ...TENANT })
  for (const name of ["template_source", "restored"]) await queried(postgres.url("postgres"), `create database ${name}`)

  store("template", environment("template_source"))
  await dump(postgres.url("template_source"), secrets)
  await killRestore(postgres.url("restored"), tenant("restored"))
  for (const [name, sign] of [["template_source", "migrating it"], ["restored", "restoring the template"]]) {
    const said = store("setup", tenant(name))
    if (!said.includes(sign)) throw new Error(`the setup of ${name} did not say ${sign}:\n${said}`)
  }
  await compare(postgres.url("template_source"), postgres.url("restored"))
  fs.writeFileSync(path.join(OUTPUT, "modules.json"), '{"files": [], "paths": {}}')
  await serve({ ...tenant("restored"), MODULES_LIST: path.join(OUTPUT, "modules.json") }, ["--require", path.join(__dirname, "list-modules.js")])
  await serve(tenant("restored")) // once more as every store does, with the list
}

async function main() {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "template-"))
  const services = []
  try {
    services.push(await startPostgres(folder, PROGRAMS))
    services.push(await startRedis())
    await make(...services)
  } finally {
    for (const service of services) await service.stop()
    fs.rmSync(folder, { recursive: true })
  }
}

main().catch((error) => {
  console.error(error.stack || error)
  process.exit(1)
})
