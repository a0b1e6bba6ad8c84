/**
 * A wall clock that can be set while the process runs, as an administrator or NTP sets a node's: loaded into a mirror before
 * its program (`--import`). Only `Date` changes; timers and monotonic time continue, as they do on a real node.
 */
import { readFileSync } from "node:fs"
import { isMainThread } from "node:worker_threads"

/** The environment variable with the path of a file that says how many milliseconds the clock is off. */
export const variable = "FAULTS_CLOCK_FILE"

/** The signal on which the process reads the file again. */
export const signal = "SIGUSR2"

/** The line that the process writes to its standard error when its clock was set. */
export const notice = "the clock was set"

const file = process.env[variable]

if (file !== undefined && isMainThread) {
  const RealDate = Date
  let offMillis = 0
  const now = () => RealDate.now() + offMillis
  globalThis.Date = new Proxy(RealDate, {
    construct: (target, args: ReadonlyArray<unknown>, newTarget) =>
      Reflect.construct(target, args.length === 0 ? [now()] : args, newTarget) as Date,
    apply: () => new RealDate(now()).toString(),
    get: (target, property, receiver) => property === "now" ? now : Reflect.get(target, property, receiver) as unknown
  })
  process.on(signal, () => {
    offMillis = Number(readFileSync(file, "utf8"))
    process.stderr.write(`${notice}: it is ${new Date().toISOString()}\n`)
  })
}
