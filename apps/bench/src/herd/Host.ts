/** A host on the bridge of an isolated program: a network namespace whose link has a limited speed in both directions. */
import * as NetworkNamespace from "@spegel-ts/testing/network/NetworkNamespace"
import { run } from "@spegel-ts/testing/process/Command"
import { Effect } from "effect"

export interface Host {
  readonly namespace: string
  readonly address: string
}

/** Speeds in bytes per second, seen from the host. */
export interface Speeds {
  readonly up: number
  readonly down: number
}

const subnet = "10.77.0"
/** The address of a host. */
export const addressOf = (number: number): string => `${subnet}.${number}`
/** The number of the program itself. */
const ownNumber = 254

/** Joins the bridge to the network of the hosts. */
export const joinBridge = NetworkNamespace.addAddress(`${addressOf(ownNumber)}/24`, NetworkNamespace.bridge)

/** Enough for one turn of the kernel's clock at these speeds. */
const burst = "128kb"

/** Limits what a device sends. The queue is long: without a fair one, short ones starve some of many connections. */
const limit = Effect.fnUntraced(function*(command: ReadonlyArray<string>, device: string, speed: number) {
  const [first, ...rest] = [...command, "tc", "qdisc", "add", "dev", device]
  const rate = ["tbf", "rate", `${Math.round(speed * 8)}bit`, "burst", burst, "latency", "400ms"]
  yield* run(first, [...rest, "root", ...rate])
})

/** The device of a host's link at the bridge. */
export const linkOf = (number: number): string => `veth${number}`

/** Cuts a host off from others: what it sends them is lost on the way, as in a network that is broken. Both sides need it. */
export const cut = (namespace: string, others: ReadonlyArray<string>) => neighbours(namespace, others, "replace")

/** Undoes `cut`. */
export const mend = (namespace: string, others: ReadonlyArray<string>) => neighbours(namespace, others, "del")

/** An address that no device has. */
const nowhere = "02:00:00:00:00:fe"

const neighbours = Effect.fnUntraced(
  function*(namespace: string, others: ReadonlyArray<string>, change: "replace" | "del") {
    for (const other of others) {
      const entry = change === "del" ? [] : ["lladdr", nowhere, "nud", "permanent"]
      yield* NetworkNamespace.ipIn(namespace, "neigh", change, other, ...entry, "dev", "eth0")
    }
  }
)

/** Connects to a port and ends with code 0 if that was possible within a second. */
const connecting = "const s=require('net').connect({host:process.argv[1],port:process.argv[2]},()=>process.exit(0));" +
  "s.on('error',()=>process.exit(1));setTimeout(()=>process.exit(1),1000)"

/** Whether a host can connect to a port of another. */
export const reaches = (namespace: string, address: string, port: number): Effect.Effect<boolean> => {
  const [command, ...args] = NetworkNamespace.enter(namespace)
  return Effect.isSuccess(run(command, [...args, process.execPath, "-e", connecting, address, String(port)]))
}

/** Makes host `number`, from 1 to 253; it ends with the isolated program. */
export const make = Effect.fnUntraced(function*(number: number, { down, up }: Speeds) {
  const namespace = `host${number}`
  const near = linkOf(number)
  yield* NetworkNamespace.ip("netns", "add", namespace)
  yield* NetworkNamespace.link({ name: near, bridge: NetworkNamespace.bridge, namespace, inside: "eth0" })
  const address = addressOf(number)
  yield* NetworkNamespace.up("lo", namespace)
  yield* NetworkNamespace.addAddress(`${address}/24`, "eth0", namespace)
  yield* NetworkNamespace.up("eth0", namespace)
  yield* limit(NetworkNamespace.enter(namespace), "eth0", up)
  yield* limit([], near, down)
  return { namespace, address } satisfies Host
})
