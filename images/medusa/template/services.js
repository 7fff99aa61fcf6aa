// A throwaway Postgres and Redis for the build: on the loopback, each behind a password of its own, gone with the build.
const { spawn, spawnSync } = require("node:child_process")
const crypto = require("node:crypto")
const fs = require("node:fs")
const net = require("node:net")
const path = require("node:path")
const { setTimeout: delay } = require("node:timers/promises")

const START_SECONDS = 60

function run(command, words, options = {}) {
  const done = spawnSync(command, words, { encoding: "utf8", maxBuffer: 256 * 2 ** 20, timeout: 600_000, ...options })
  if (done.error) throw done.error
  if (done.status !== 0) throw new Error(`${command} ended with ${done.status ?? done.signal}:\n${done.stdout}${done.stderr}`)
  return done.stdout
}

async function freePort() {
  const server = net.createServer()
  await new Promise((resolve, reject) => server.once("error", reject).listen(0, "127.0.0.1", resolve))
  const { port } = server.address()
  await new Promise((resolve) => server.close(resolve))
  return port
}

async function listening(port, child, name) {
  const until = Date.now() + START_SECONDS * 1000
  for (;;) {
    if (child.exitCode !== null) throw new Error(`${name} ended with ${child.exitCode}`)
    const open = await new Promise((resolve) => {
      const socket = net.connect(port, "127.0.0.1")
      socket.once("connect", () => resolve(true)).once("error", () => resolve(false))
      socket.once("connect", () => socket.destroy())
    })
    if (open) return
    if (Date.now() > until) throw new Error(`${name} does not listen after ${START_SECONDS} s`)
    await delay(50)
  }
}

async function startPostgres(folder, programs) {
  const port = await freePort()
  const password = crypto.randomBytes(24).toString("hex")
  const data = path.join(folder, "postgres")
  const passwordFile = path.join(folder, "password")
  fs.writeFileSync(passwordFile, password, { mode: 0o600 })
  run(path.join(programs, "initdb"), [
    `--pgdata=${data}`, "--username=store", `--pwfile=${passwordFile}`, "--auth=scram-sha-256",
    "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync",
  ])
  const settings = ["listen_addresses=127.0.0.1", `port=${port}`, `unix_socket_directories=${folder}`, "fsync=off"]
  const child = spawn(path.join(programs, "postgres"), ["-D", data, ...settings.flatMap((each) => ["-c", each])], {
    stdio: ["ignore", "ignore", fs.openSync(path.join(folder, "postgres.log"), "a")],
  })
  await listening(port, child, "Postgres")
  const url = (database) => `postgres://store:${password}@127.0.0.1:${port}/${database}?sslmode=disable`
  return { url, password, stop: () => stopped(child, "SIGINT") }
}

async function startRedis() {
  const port = await freePort()
  const password = crypto.randomBytes(24).toString("hex")
  const child = spawn("redis-server", ["-"], { stdio: ["pipe", "ignore", "inherit"] })
  child.stdin.end(`port ${port}\nbind 127.0.0.1\nrequirepass ${password}\nsave ""\nappendonly no\nmaxmemory-policy noeviction\n`)
  await listening(port, child, "Redis")
  return { url: `redis://:${password}@127.0.0.1:${port}`, password, stop: () => stopped(child, "SIGTERM") }
}

async function stopped(child, signal) {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = new Promise((resolve) => child.once("exit", resolve))
  child.kill(signal)
  await ended
}

module.exports = { freePort, run, startPostgres, startRedis, stopped }
