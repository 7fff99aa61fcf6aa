// Reaching a store's database, and being the only one who sets it up.
const { setTimeout: delay } = require("node:timers/promises")
const { say } = require("./journal")

const DEPENDENCY_SECONDS = 120 // a database's first start on a busy machine takes a few; then something is wrong
const RETRY_MILLISECONDS = 100
const REPORT_SECONDS = 10
const CONNECT_MILLISECONDS = 5000
const LOCK = "select pg_try_advisory_lock(hashtext('storeplane setup')) as free"

// Try until it works. The last error is said while waiting: a wrong address must not look like a hang.
async function eventually(name, attempt, limitSeconds = DEPENDENCY_SECONDS) {
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

async function connect(querySeconds) {
  const { Client } = require("pg")
  const client = new Client({
    connectionString: process.env.DATABASE_URL,
    connectionTimeoutMillis: CONNECT_MILLISECONDS,
    query_timeout: querySeconds * 1000,
  })
  client.on("error", () => {}) // the query in flight reports it; without a listener it would end the process
  try {
    await client.connect()
  } catch (error) {
    await client.end().catch(() => {}) // else a connection that comes too late would stay
    throw error
  }
  return client
}

// Works on a connection that is there as soon as the database is, with a limit for each query.
async function withDatabase(querySeconds, work) {
  const client = await eventually("the database", () => connect(querySeconds))
  try {
    return await work(client)
  } finally {
    await client.end().catch(() => {})
  }
}

// One setup at a time on one database: the lock lives as long as the connection, so a killed setup frees it.
async function alone(querySeconds, work) {
  return withDatabase(querySeconds, async (client) => {
    await eventually("the end of another setup", async () => {
      const { rows } = await client.query(LOCK)
      if (!rows[0].free) throw new Error("another setup holds the database")
    })
    return work(client)
  })
}

// All of it or nothing: a process that is killed leaves the database as it was.
async function inTransaction(client, work) {
  await client.query("begin")
  try {
    await work()
    await client.query("commit")
  } catch (error) {
    await client.query("rollback").catch(() => {}) // the first error is the one to tell
    throw error
  }
}

async function record(client, revision) {
  await client.query(
    "create table if not exists public.storeplane_setup (revision text primary key, finished_at timestamptz not null default now())"
  )
  await client.query("insert into public.storeplane_setup (revision) values ($1) on conflict do nothing", [revision])
}

// Waits until the setup of a revision is recorded. Without a limit of its own: the startup probe ends a wait that is too
// long, and says so where people look. One connection serves all questions, because each new one costs the database a
// login, just when it restores.
async function recorded(revision) {
  let client
  const ask = async () => {
    client = client || (await connect(10))
    try {
      const { rowCount } = await client.query("select 1 from public.storeplane_setup where revision = $1", [revision])
      if (rowCount > 0) return
    } catch (error) {
      if (error.code === undefined || !/^42P01$|^3F000$/.test(error.code)) {
        client.end().catch(() => {})
        client = undefined
      }
      throw error
    }
    throw new Error("another revision is set up, this one is not yet")
  }
  await eventually(`setup ${revision}`, ask, Infinity)
  await client.end().catch(() => {})
}

module.exports = { alone, eventually, inTransaction, record, recorded, withDatabase }
