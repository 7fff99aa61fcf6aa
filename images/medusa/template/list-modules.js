// Loaded before a server: when that ends, it writes what bin/preload.js reads at the next start.
const fs = require("node:fs")
const Module = require("node:module")
const path = require("node:path")

const MODULES = path.join(process.cwd(), "node_modules") + path.sep

process.once("exit", () => {
  const files = Object.keys(require.cache).filter((file) => file.startsWith(MODULES) && file.endsWith("js"))
  const paths = Object.entries(Module._pathCache || {}).filter(([, file]) => file.startsWith(MODULES))
  fs.writeFileSync(process.env.MODULES_LIST, JSON.stringify({ files, paths: Object.fromEntries(paths) }))
})
