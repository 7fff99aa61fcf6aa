#!/usr/bin/env node
// The two ways this image runs.
//
//   store.js setup   migrate, seed, and record in the database that this revision is set up; then end
//   store.js serve   wait until the setup of this revision is recorded, then serve
//
// Setup is one process: Medusa's own commands each load the whole application, which costs seconds a store waits for.
// Serve waits inside the server's process, with the application's code already loaded, so that the shop answers as
// soon as possible after the setup's last line.
const net = require("node:net")
const { setTimeout: delay } = require("node:timers/promises")

const DIRECTORY = process.cwd()
const DEPENDENCY_SECONDS = 120 // a database's first start on a busy machine takes a few; then something is wrong
const RETRY_MILLISECONDS = 250
const REPORT_SECONDS = 10
const NEEDED = {
  setup: ["DATABASE_URL", "REDIS_URL", "SETUP_REVISION", "PUBLISHABLE_KEY", "ADMIN_EMAIL", "ADMIN_PASSWORD", "JWT_SECRET", "COOKIE_SECRET"],
  serve: ["DATABASE_URL", "REDIS_URL", "SETUP_REVISION", "PUBLIC_URL", "JWT_SECRET", "COOKIE_SECRET"],
}

const started = process.hrtime.bigint()

function say(text) {
  const seconds = Number(process.hrtime.bigint() - started) / 1e9
  console.log(`[store] ${seconds.toFixed(1)} s ${text}`)
}

// As process 1 of a container a signal without a handler is ignored, and a deletion would take the whole grace period.
function endOnSignal() {
  const end = (signal) => {
    say(`${signal}: ending`)
    process.exit(143)
  }
  process.once("SIGTERM", end)
  process.once("SIGINT", end)
  return () => {
    process.removeListener("SIGTERM", end)
    process.removeListener("SIGINT", end)
  }
}

async function connectable(name, url) {
  const { hostname, port } = new URL(url)
  await eventually(name, () => new Promise((resolve, reject) => {
    const socket = net.connect({ host: hostname, port: Number(port), timeout: 2000 })
    socket.once("connect", () => resolve(socket.destroy()))
    socket.once("timeout", () => socket.destroy(new Error("no answer within 2 s")))
    socket.once("error", reject)
  }), DEPENDENCY_SECONDS)
}

// Try until it works. The last error is said while waiting: a wrong address must not look like a hang.
async function eventually(name, attempt, limitSeconds) {
  const begun = Date.now()
  let reported = begun
  for (;;) {
    try {
      return await attempt()
    } catch (error) {
      const waited = (Date.now() - begun) / 1000
      if (waited > limitSeconds) throw new Error(`${name} did not come within ${limitSeconds} s: ${error.message}`, { cause: error })
      if (Date.now() - reported > REPORT_SECONDS * 1000) {
        reported = Date.now()
        say(`waiting for ${name}: ${error.message}`)
      }
    }
    await delay(RETRY_MILLISECONDS)
  }
}

async function withDatabase(work) {
  const { Client } = require("pg")
  const client = new Client({ connectionString: process.env.DATABASE_URL, connectionTimeoutMillis: 5000, query_timeout: 10000 })
  client.on("error", () => {}) // the query in flight reports it; without a listener it would end the process
  await client.connect()
  try {
    return await work(client)
  } finally {
    await client.end().catch(() => {})
  }
}

// One setup at a time on one database: the lock lives as long as the connection, so a killed setup frees it.
async function alone(work) {
  return withDatabase(async (client) => {
    await eventually("the end of another setup", async () => {
      const { rows } = await client.query("select pg_try_advisory_lock(hashtext('storeplane setup')) as free")
      if (!rows[0].free) throw new Error("another setup holds the database")
    }, DEPENDENCY_SECONDS)
    return work()
  })
}

// Medusa guards its scripts with a lock in Redis as well, for an hour: a setup killed in the middle would keep every
// later one out. Whoever runs alone knows that a lock found here is a dead one's.
async function removeDeadLock() {
  const Redis = require("ioredis")
  const redis = new Redis(process.env.REDIS_URL, { connectTimeout: 5000, commandTimeout: 5000, maxRetriesPerRequest: 3 })
  redis.on("error", (error) => say(`Redis: ${error.message}`))
  try {
    if (await redis.del("medusa_lock:migration-scripts-running")) say("removed the lock of a setup that was killed")
  } finally {
    redis.disconnect()
  }
}

async function setup() {
  endOnSignal()
  process.env.MEDUSA_WORKER_MODE = "server" // a setup must not pick up background work
  const { initializeContainer } = require("@medusajs/medusa/loaders/index")
  const { migrate } = require("@medusajs/medusa/commands/db/migrate")
  const { runMigrationScripts } = require("@medusajs/medusa/commands/db/run-scripts")
  say("code loaded")
  await connectable("the database", process.env.DATABASE_URL)
  await connectable("Redis", process.env.REDIS_URL)
  say("database and Redis answer")
  await alone(() => setUp(initializeContainer, migrate, runMigrationScripts))
}

async function setUp(initializeContainer, migrate, runMigrationScripts) {
  const container = await initializeContainer(DIRECTORY)
  const logger = container.resolve("logger")
  const done = await migrate({
    directory: DIRECTORY,
    container,
    logger,
    skipScripts: true, // they follow in this process
    skipLinks: false,
    skipSearch: false,
    executeSafeLinks: true, // without it an unsafe link change would ask a terminal that is not there
    executeSafeSearch: true,
    executeAllLinks: false,
    executeAllSearch: false,
    allOrNothing: false,
  })
  if (!done) throw new Error("the migration did not end well; its reason is in the lines above")
  say("migrated")
  await removeDeadLock()
  await runMigrationScripts({ directory: DIRECTORY, container, logger })
  say("seeded")
  await withDatabase(async (client) => {
    await client.query(
      "create table if not exists storeplane_setup (revision text primary key, finished_at timestamptz not null default now())"
    )
    await client.query("insert into storeplane_setup (revision) values ($1) on conflict do nothing", [process.env.SETUP_REVISION])
  })
  say(`setup ${process.env.SETUP_REVISION} recorded`)
}

async function serve() {
  const release = endOnSignal()
  const { default: start } = require("@medusajs/medusa/commands/start")
  say("code loaded")
  // No limit of its own: the startup probe ends a wait that is too long, and says so where people look.
  await eventually(`setup ${process.env.SETUP_REVISION}`, () => withDatabase(async (client) => {
    const { rowCount } = await client.query("select 1 from storeplane_setup where revision = $1", [process.env.SETUP_REVISION])
    if (rowCount === 0) throw new Error("another revision is set up, this one is not yet")
  }), Infinity)
  say("setup found, starting")
  release() // Medusa brings handlers of its own, which let requests in flight end
  await start({ directory: DIRECTORY, port: Number(process.env.PORT || 9000), types: false })
}

async function main() {
  const command = process.argv[2]
  const needed = NEEDED[command]
  if (!needed) {
    console.error(`unknown command ${JSON.stringify(command)}: use setup or serve`)
    process.exit(2)
  }
  const missing = needed.filter((name) => !process.env[name])
  if (missing.length > 0) {
    console.error(`not set in the environment: ${missing.join(", ")}`)
    process.exit(2)
  }
  if (command === "serve") return serve()
  await setup()
  process.exit(0) // modules leave timers and sockets behind
}

main().catch((error) => {
  console.error(`[store] failed: ${error.stack || error}`)
  process.exit(1)
})
