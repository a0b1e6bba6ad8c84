/**
 * A network of the benchmark's own, empty but for its loopback, with Linux's default congestion control: so the machine's
 * firewall and TCP settings are not what is measured. BBR, for one, paces what it sends by timers where the machine has no
 * `fq` queue, and on a loopback these cost more than the bytes' way does.
 */
import { Console, Effect } from "effect"
import { execFile, spawn } from "node:child_process"
import { readFile, writeFile } from "node:fs/promises"
import { promisify } from "node:util"

const congestionControl = "/proc/sys/net/ipv4/tcp_congestion_control"
const marker = "SPEGEL_BENCH_OWN_NETWORK"

/** Runs this program again in a network of its own, which ends with it. */
const enter = Effect.callback<void>((resume) => {
  const child = spawn("unshare", ["--net", process.execPath, ...process.execArgv, ...process.argv.slice(1)], {
    stdio: "inherit",
    env: { ...process.env, [marker]: "true" }
  })
  child.once("error", (error) => resume(Effect.die(error)))
  child.once("exit", (code) => {
    process.exitCode = code ?? 1
    resume(Effect.void)
  })
  return Effect.callback<void>((ended) => {
    child.once("exit", () => ended(Effect.void)).kill("SIGTERM")
  })
})

const prepare = async () => {
  await promisify(execFile)("ip", ["link", "set", "lo", "up"])
  await writeFile(congestionControl, "cubic")
}

/** Measures in a network of its own where this is root, else on the machine's; says which. */
export const own = (measure: Effect.Effect<void>): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (process.env[marker] !== undefined) {
      return Effect.promise(prepare).pipe(
        Effect.andThen(Console.log("in a network of its own, TCP congestion control cubic")),
        Effect.andThen(measure)
      )
    }
    return process.getuid?.() === 0 ? enter : ofMachine(measure)
  })

/** Measures on the machine's loopback. */
export const ofMachine = (measure: Effect.Effect<void>): Effect.Effect<void> =>
  Effect.promise(() => readFile(congestionControl, "utf8")).pipe(
    Effect.flatMap((name) => Console.log(`on the machine's loopback, TCP congestion control ${name.trim()}`)),
    Effect.andThen(measure)
  )
