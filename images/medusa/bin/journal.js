// What a person reads in the pod's log: one line for each step, with the seconds since the process began.
function say(text) {
  console.log(`[store] ${(performance.now() / 1000).toFixed(1)} s ${text}`)
}

module.exports = { say }
