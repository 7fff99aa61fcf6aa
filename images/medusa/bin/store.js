#!/usr/bin/env node
// The ways this image runs.
//
//   store.js setup     set the database up for this revision and record that; then end
//   store.js serve     wait until the setup of this revision is recorded, then serve
//   store.js template  migrate and seed an empty database without a tenant; used by the image's build alone
//
// Setup restores a template into an empty database, which needs a driver and no Medusa; any other database is migrated
// and seeded in one process, because Medusa's own commands each load the whole application. Serve loads all code before
// it waits, so that the shop answers as soon as possible after the setup's last line.
const net = require("node:net")
const { alone, eventually, record, recorded, withDatabase } = require("./database")
const { say } = require("./journal")

const DIRECTORY = process.cwd()
const QUERY_SECONDS = 10
const RESTORE_SECONDS = 120 // the template is one query; it takes one second with a CPU of its own
const APPLICATION = ["DATABASE_URL", "REDIS_URL", "JWT_SECRET", "COOKIE_SECRET"]
const NEEDED = {
  setup: [...APPLICATION, "SETUP_REVISION", "PUBLISHABLE_KEY", "ADMIN_EMAIL", "ADMIN_PASSWORD"],
  serve: [...APPLICATION, "SETUP_REVISION", "PUBLIC_URL"],
  template: APPLICATION,
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

async function setup() {
  endOnSignal()
  const { readTemplate, restoreWhenEmpty } = require("./template")
  const { tenantRows } = require("./tenant")
  const { PUBLISHABLE_KEY, ADMIN_EMAIL, ADMIN_PASSWORD, SETUP_REVISION } = process.env
  const template = readTemplate()
  const tenant = tenantRows({ publishableKey: PUBLISHABLE_KEY, email: ADMIN_EMAIL, password: ADMIN_PASSWORD })
  tenant.catch(() => {}) // told where it is awaited; the database may take longer
  await alone(RESTORE_SECONDS, async (client) => {
    say("the database answers")
    if (await restoreWhenEmpty(client, template, tenant, SETUP_REVISION)) return
    await migrateAndSeed()
    await withDatabase(QUERY_SECONDS, (other) => record(other, SETUP_REVISION))
  })
  say(`setup ${SETUP_REVISION} recorded`)
}

async function makeTemplate() {
  await alone(QUERY_SECONDS, migrateAndSeed)
}

// Medusa closes Redis when its scripts are done, without waiting for the events that they have just given it. Nobody
// listens to these in a setup, and the rejection nobody awaits would end the process with the work done but not recorded.
function outliveLateEvents() {
  process.on("unhandledRejection", (error) => {
    if (error instanceof Error && error.message === "Connection is closed.") return say("an event came after Redis was closed")
    console.error(`[store] failed: ${(error && error.stack) || error}`)
    process.exit(1)
  })
}

// The caller holds the setup's lock.
async function migrateAndSeed() {
  outliveLateEvents()
  process.env.MEDUSA_WORKER_MODE = "server" // a setup must not pick up background work
  const { initializeContainer } = require("@medusajs/medusa/loaders/index")
  const { migrate } = require("@medusajs/medusa/commands/db/migrate")
  const { runMigrationScripts } = require("@medusajs/medusa/commands/db/run-scripts")
  say("code loaded")
  await connectable("Redis", process.env.REDIS_URL)
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
}

async function connectable(name, url) {
  const { hostname, port } = new URL(url)
  await eventually(name, () => new Promise((resolve, reject) => {
    const socket = net.connect({ host: hostname, port: Number(port), timeout: 2000 })
    socket.once("connect", () => resolve(socket.destroy()))
    socket.once("timeout", () => socket.destroy(new Error("no answer within 2 s")))
    socket.once("error", reject)
  }))
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

async function serve() {
  const release = endOnSignal()
  const { preload, readList, recallPaths } = require("./preload")
  const { files, paths } = readList()
  recallPaths(paths)
  const { default: start } = require("@medusajs/medusa/commands/start")
  const { initializeContainer } = require("@medusajs/medusa/loaders/index")
  // As the start itself does first: what is loaded next looks at the configuration.
  await initializeContainer(DIRECTORY, { skipDbConnection: true })
  const count = await preload(files)
  say(`code loaded, ${count} modules of it ahead of their use`)
  await recorded(process.env.SETUP_REVISION)
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
  await (command === "setup" ? setup() : makeTemplate())
  process.exit(0) // modules leave timers and sockets behind
}

main().catch((error) => {
  console.error(`[store] failed: ${error.stack || error}`)
  process.exit(1)
})
