/**
 * A network of the benchmark's own, empty but for its loopback, with Linux's default congestion control: so the machine's
 * firewall and TCP settings are not what is measured. BBR, for one, paces what it sends by timers where the machine has no
 * `fq` queue, and these take CPU that no server can save.
 */
import { Console, Effect } from "effect"
import { execFile, spawn } from "node:child_process"
import { readFile, writeFile } from "node:fs/promises"
import { promisify } from "node:util"

const congestionControl = "/proc/sys/net/ipv4/tcp_congestion_control"
const marker = "SPEGEL_BENCH_OWN_NETWORK"
const loopbackUp = ["ip", "link", "set", "lo", "up"]

/** Why there cannot be such a network; undefined where there can: that takes root, `unshare` and `ip`. */
const obstacle = Effect.promise(() =>
  promisify(execFile)("unshare", ["--net", ...loopbackUp]).then(() => undefined, ({ message }: Error) => message.trim())
)

/** Runs this program again in a network of its own, which ends with it. */
const enter = Effect.callback<void>((resume) => {
  const child = spawn("unshare", ["--net", process.execPath, ...process.execArgv, ...process.argv.slice(1)], {
    stdio: "inherit",
    env: { ...process.env, [marker]: "true" }
  })
  child.once("exit", (code) => {
    process.exitCode = code ?? 1
    resume(Effect.void)
  })
  return Effect.callback<void>((ended) => {
    child.once("exit", () => ended(Effect.void)).kill("SIGTERM")
  })
})

const prepare = async () => {
  const [ip = "", ...args] = loopbackUp
  await promisify(execFile)(ip, args)
  // Without CAP_NET_ADMIN in the first network only some may be chosen. Either is better than BBR here.
  await writeFile(congestionControl, "cubic").catch(() => writeFile(congestionControl, "reno")).catch(() => {})
  return (await readFile(congestionControl, "utf8")).trim()
}

/** Measures on the machine's loopback. */
export const ofMachine = (measure: Effect.Effect<void>): Effect.Effect<void> =>
  Effect.promise(() => readFile(congestionControl, "utf8")).pipe(
    Effect.flatMap((name) => Console.log(`on the machine's loopback, TCP congestion control ${name.trim()}`)),
    Effect.andThen(measure)
  )

/** Measures in a network of its own, where there can be one, else on the machine's loopback; says which. */
export const own = Effect.fn("Network.own")(function*(measure: Effect.Effect<void>) {
  if (process.env[marker] !== undefined) {
    const name = yield* Effect.promise(prepare)
    yield* Console.log(`in a network of its own, TCP congestion control ${name}`)
    return yield* measure
  }
  const reason = yield* obstacle
  if (reason === undefined) return yield* enter
  yield* Console.log(`no network of its own: ${reason}`)
  yield* ofMachine(measure)
})
