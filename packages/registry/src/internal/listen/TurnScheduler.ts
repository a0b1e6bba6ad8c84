/**
 * Continues a request within the same turn of the event loop: a request has many steps, and while large bodies move a turn
 * takes milliseconds.
 */
import * as Scheduler from "effect/Scheduler"

const settled = Promise.resolve()

export const withinTurn = new Scheduler.MixedScheduler("async", (task) => {
  let called = true
  // `queueMicrotask` makes an `AsyncResource` for each task: a tenth of the CPU of a small request.
  void settled.then(() => {
    if (called) task()
  })
  return () => {
    called = false
  }
})
