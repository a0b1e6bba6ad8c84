/**
 * Two hosts for a benchmark, each a network namespace, with a virtual link between them and Linux's default congestion control: so
 * the firewall and the TCP settings of the machine do not affect the measurement. BBR, for example, paces with timers if the machine
 * has no `fq` queue, and they take CPU that no server can save. The namespaces end with the benchmark.
 */
import * as NetworkNamespace from "@spegel-ts/testing/network/NetworkNamespace"
import * as Command from "@spegel-ts/testing/process/Command"
import * as Subprocess from "@spegel-ts/testing/process/Subprocess"
import { Console, Effect } from "effect"
import { readFile, readlink } from "node:fs/promises"
import { untilDone } from "../../Waiting.ts"

/** A host on which servers run. */
export interface Host {
  /** Its addresses, numbered from 1. */
  readonly address: (number: number) => string
  /** The command that runs another command there; empty for this process' own host. */
  readonly enter: ReadonlyArray<string>
}

export interface Hosts {
  /** The host of the clients, and of this process. */
  readonly near: Host
  readonly far: Host
  /** The address of this machine's servers for the near host; they have a link of their own, if they are needed. */
  readonly machine: string
}

const congestionControl = "/proc/sys/net/ipv4/tcp_congestion_control"
const marker = "SPEGEL_BENCH_OWN_NETWORK"
const subnets = { hosts: "10.98.1", machine: "10.98.2" }
const addressesOfHost = 16
/** The near host's addresses in a subnet come after those of the other end. */
const nearFrom = 100

/** Why this machine cannot have such a network; undefined if it can, which takes root, `unshare`, `nsenter` and `ip`. */
const obstacle = Command.run("unshare", [
  "--net",
  "sh",
  "-c",
  "ip link add near type veth peer name far && nsenter --version"
]).pipe(Effect.match({ onSuccess: () => undefined, onFailure: ({ message }) => message }))

/** Links this host to the one that a process is on. */
const link = Effect.fnUntraced(function*(subnet: string, process: number, addresses: number) {
  const [near, far] = [`near-${subnet}`, `bench-${subnet}`]
  yield* NetworkNamespace.link({ name: near, namespace: process, inside: far })
  for (const [device, from, namespace] of [[near, nearFrom, undefined], [far, 0, process]] as const) {
    for (let number = 1; number <= addresses; number++) {
      yield* NetworkNamespace.addAddress(`${subnet}.${from + number}/24`, device, namespace)
    }
    yield* NetworkNamespace.up(device, namespace)
  }
})

/** Chooses the default congestion control on a host, if that is allowed; gives the one that the host has. */
const chooseCongestionControl = (...enter: ReadonlyArray<string>) => {
  // Without CAP_NET_ADMIN in the first namespace only some may be chosen. Either is better than BBR here.
  const choose = `for name in cubic reno; do echo $name >${congestionControl} && break; done; cat ${congestionControl}`
  const [command, ...args] = [...enter, "sh", "-c", choose]
  return Effect.map(Command.run(command, args), (text) => text.trim())
}

/** The near host is this process' namespace; the far host ends with the scope. */
const prepare = Effect.fnUntraced(function*(machine: boolean) {
  // It reads until its standard input ends, which is with this process, however that ends.
  const { pid = 0 } = yield* Subprocess.start("unshare", ["--net", "cat"], { stdio: ["pipe", "ignore", "ignore"] })
  const namespaceOf = (process: number | "self") => readlink(`/proc/${process}/ns/net`)
  yield* Effect.promise(async () => {
    const own = await namespaceOf("self")
    await untilDone(async () => await namespaceOf(pid) !== own, 10_000, "the far host does not start")
  })
  for (const host of [undefined, pid]) yield* NetworkNamespace.up("lo", host)
  yield* link(subnets.hosts, pid, addressesOfHost)
  // The process that runs this one again is on the machine's own network.
  if (machine) yield* link(subnets.machine, process.ppid, 1)
  const enterFar = NetworkNamespace.enter(pid)
  const [near, far] = yield* Effect.all([chooseCongestionControl(), chooseCongestionControl(...enterFar)])
  yield* Console.log(`two hosts and a veth link between them, TCP congestion control ${near} and ${far}`)
  return {
    near: { address: (number: number) => `${subnets.hosts}.${nearFrom + number}`, enter: [] },
    far: { address: (number: number) => `${subnets.hosts}.${number}`, enter: enterFar },
    machine: `${subnets.machine}.1`
  } satisfies Hosts
})

/** The loopback device of this machine, in place of two hosts. */
const loopback: Effect.Effect<Hosts> = Effect.gen(function*() {
  const name = yield* Effect.promise(() => readFile(congestionControl, "utf8"))
  yield* Console.log(`on the machine's loopback, TCP congestion control ${name.trim()}`)
  return {
    near: { address: (number: number) => `127.8.1.${number}`, enter: [] },
    far: { address: (number: number) => `127.8.2.${number}`, enter: [] },
    machine: "127.0.0.1"
  }
})

/** Measures on two hosts if this machine can have them, else on its loopback device; prints which. */
export const own = Effect.fnUntraced(function*(
  options: { readonly machine: boolean },
  measure: (hosts: Hosts) => Effect.Effect<void>
) {
  if (process.env[marker] !== undefined) return yield* measure(yield* prepare(options.machine))
  const reason = yield* obstacle
  if (reason === undefined) {
    process.exitCode = yield* NetworkNamespace.runAgain({
      namespaces: ["--net"],
      environment: { [marker]: "true" },
      // The program ends its servers.
      signal: "SIGTERM"
    })
    return
  }
  yield* Console.log(`no hosts of its own: ${reason}`)
  yield* measure(yield* loopback)
}, Effect.scoped)
