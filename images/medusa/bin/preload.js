// Loading, before the setup is there, what Medusa will load after it.
//
// Medusa asks for most of its code while it starts, and the start has to wait for the database. The image's build has
// noted the order in which a real start loads its modules; the same order here, so that nothing is loaded before what it
// finds in a real start. A module that is not in the list is merely loaded later.
const fs = require("node:fs")
const Module = require("node:module")
const path = require("node:path")
const { setImmediate: turn } = require("node:timers/promises")

const LIST = path.join(__dirname, "..", "template", "modules.json")

// Node's own memory of where names lead, as a real start leaves it. Finding eight thousand of them anew, through folders
// that an image never changes, is a tenth of a start. Node does not document it; without it, names are found as ever.
function recallPaths(paths) {
  if (Module._pathCache) Object.assign(Module._pathCache, paths)
}

async function preload(files) {
  let count = 0
  for (const file of files) {
    if (require.cache[file]) continue
    require(file)
    count += 1
    await turn() // signals are heard between two modules
  }
  return count
}

const readList = () => JSON.parse(fs.readFileSync(LIST, "utf8"))

module.exports = { preload, readList, recallPaths }
