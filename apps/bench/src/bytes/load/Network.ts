/**
 * Two hosts of the benchmark's own, each a network namespace, with a veth link between them and Linux's default congestion
 * control: so the machine's firewall and TCP settings are not what is measured. BBR, for one, paces what it sends by timers
 * where the machine has no `fq` queue, and these take CPU that no server can save. The namespaces end with the benchmark.
 */
import { Console, Effect } from "effect"
import { execFile, spawn } from "node:child_process"
import { readFile, readlink } from "node:fs/promises"
import { promisify } from "node:util"
import { until } from "../../Waiting.ts"

/** A host on which servers run. */
export interface Host {
  /** Its addresses, numbered from 1. */
  readonly address: (number: number) => string
  /** The command that runs another command there; empty where that is this process' own host. */
  readonly enter: ReadonlyArray<string>
}

export interface Hosts {
  /** The host of the clients, and of this process. */
  readonly near: Host
  readonly far: Host
  /** Where servers of this machine are reached from the near host: by a link of their own, if they are needed. */
  readonly machine: string
}

const congestionControl = "/proc/sys/net/ipv4/tcp_congestion_control"
const marker = "SPEGEL_BENCH_OWN_NETWORK"
const subnets = { hosts: "10.98.1", machine: "10.98.2" }
const addressesOfHost = 16
/** The near host's addresses in a subnet come after those of the other end. */
const nearFrom = 100

/** Runs a command to its end. */
export const run = (...[command = "", ...args]: ReadonlyArray<string>) => promisify(execFile)(command, args)
const namespaceOf = (pid: number | string) => `/proc/${pid}/ns/net`
const enterNamespace = (pid: number | string) => ["nsenter", `--net=${namespaceOf(pid)}`]

/** Why there cannot be such a network; undefined where there can: that takes root, `unshare`, `nsenter` and `ip`. */
const obstacle = Effect.promise(() =>
  run("unshare", "--net", "sh", "-c", "ip link add near type veth peer name far && nsenter --version")
    .then(() => undefined, ({ message }: Error) => message.trim())
)

/** Runs this program again on a host of its own, which ends with it. */
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

/** Links this host to the one that a process is on. */
const link = async (subnet: string, pid: number, addresses: number): Promise<void> => {
  const [own, other] = [`near-${subnet}`, `bench-${subnet}`]
  await run("ip", "link", "add", own, "type", "veth", "peer", "name", other, "netns", String(pid))
  for (const [enter, device, from] of [[[], own, nearFrom], [enterNamespace(pid), other, 0]] as const) {
    for (let number = 1; number <= addresses; number++) {
      await run(...enter, "ip", "addr", "add", `${subnet}.${from + number}/24`, "dev", device)
    }
    await run(...enter, "ip", "link", "set", device, "up")
  }
}

/** Chooses the default congestion control on a host, where that may be done; gives the one it has. */
const chooseCongestionControl = async (enter: ReadonlyArray<string>): Promise<string> => {
  // Without CAP_NET_ADMIN in the first namespace only some may be chosen. Either is better than BBR here.
  const choose = `for name in cubic reno; do echo $name >${congestionControl} && break; done; cat ${congestionControl}`
  const { stdout } = await run(...enter, "sh", "-c", choose)
  return stdout.trim()
}

const prepare = async (machine: boolean): Promise<{ readonly hosts: Hosts; readonly news: string }> => {
  const farHost = spawn("unshare", ["--net", "sleep", "infinity"], { stdio: "ignore" })
  farHost.unref()
  process.once("exit", () => farHost.kill("SIGKILL"))
  const pid = farHost.pid ?? 0
  const own = await readlink(namespaceOf("self"))
  await until(async () => await readlink(namespaceOf(pid)) !== own, 10_000)
  const enterFar = enterNamespace(pid)
  for (const enter of [[], enterFar]) await run(...enter, "ip", "link", "set", "lo", "up")
  await link(subnets.hosts, pid, addressesOfHost)
  // The process that runs this one again is on the machine's own network.
  if (machine) await link(subnets.machine, process.ppid, 1)
  const [near, far] = await Promise.all([chooseCongestionControl([]), chooseCongestionControl(enterFar)])
  const hosts = {
    near: { address: (number: number) => `${subnets.hosts}.${nearFrom + number}`, enter: [] },
    far: { address: (number: number) => `${subnets.hosts}.${number}`, enter: enterFar },
    machine: `${subnets.machine}.1`
  }
  return { hosts, news: `two hosts and a veth link between them, TCP congestion control ${near} and ${far}` }
}

/** The machine's loopback in place of two hosts. */
const loopback: Effect.Effect<Hosts> = Effect.gen(function*() {
  const name = yield* Effect.promise(() => readFile(congestionControl, "utf8"))
  yield* Console.log(`on the machine's loopback, TCP congestion control ${name.trim()}`)
  return {
    near: { address: (number: number) => `127.8.1.${number}`, enter: [] },
    far: { address: (number: number) => `127.8.2.${number}`, enter: [] },
    machine: "127.0.0.1"
  }
})

/** Measures on two hosts, where there can be some, else on the machine's loopback; says which. */
export const own = Effect.fnUntraced(function*(
  options: { readonly machine: boolean },
  measure: (hosts: Hosts) => Effect.Effect<void>
) {
  if (process.env[marker] !== undefined) {
    const { hosts, news } = yield* Effect.promise(() => prepare(options.machine))
    yield* Console.log(news)
    return yield* measure(hosts)
  }
  const reason = yield* obstacle
  if (reason === undefined) return yield* enter
  yield* Console.log(`no hosts of its own: ${reason}`)
  yield* measure(yield* loopback)
})
