/** The processes of a lane: the node with the mirror under test, its peers, and the upstream registry. */
import * as OciLayoutWriter from "@spegel-ts/content/OciLayoutWriter"
import * as ClusterKeys from "@spegel-ts/testing/ClusterKeys"
import * as ContainerdDaemon from "@spegel-ts/testing/containerd/ContainerdDaemon"
import type { Containerd } from "@spegel-ts/testing/containerd/ContainerdPackages"
import * as NetworkNamespace from "@spegel-ts/testing/network/NetworkNamespace"
import * as MirrorPorts from "@spegel-ts/testing/node/MirrorPorts"
import * as SpegelProcess from "@spegel-ts/testing/node/SpegelProcess"
import * as Upstream from "@spegel-ts/testing/node/Upstream"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Data, Effect } from "effect"
import { mkdir, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import * as FaultPeerProcess from "./FaultPeerProcess.ts"
import * as SettableClock from "./SettableClock.ts"

/** The program that asks containerd to pull. */
export type Client = "CRI" | "ctr"

export interface LaneOptions {
  /** From 0; lanes that run at the same time differ in it. */
  readonly index: number
  readonly containerd: Containerd
  /** More of containerd's configuration. */
  readonly settings?: string
  readonly client: Client
  /** Whether all members have a cluster key: the mirrors' default mode is then single flight. */
  readonly hasKey: boolean
  /** Whether a second node, with a containerd and a mirror of its own, pulls too. */
  readonly hasSecond: boolean
}

/** A mirror process did not become ready. */
export class MirrorNotReady extends Data.TaggedError("MirrorNotReady")<{
  readonly url: string
  readonly output: string
}> {
  override get message() {
    return `the mirror at ${this.url} did not become ready: ${this.output}`
  }
}

export const ports = { registry: 5000, router: 5001, metrics: 9090 }

const addressesOf = (index: number) => ({
  node: `10.77.${index}.1`,
  good: `10.77.${index}.2`,
  fault: `10.77.${index}.3`,
  second: `10.77.${index}.4`
})

/** Gives the addresses of the mirrors to the bridge, while the scope is open. */
const takeAddresses = Effect.fnUntraced(function*({ good, node, second }: ReturnType<typeof addressesOf>) {
  const change = (change: "add" | "delete", address: string) =>
    NetworkNamespace.ip("address", change, `${address}/24`, "dev", NetworkNamespace.bridge)
  yield* Effect.forEach(
    [node, good, second],
    (address) => Effect.acquireRelease(change("add", address), () => Effect.orDie(change("delete", address)))
  )
})

interface MirrorOptions {
  readonly name: string
  readonly address: string
  readonly directory: string
  readonly store: ReadonlyArray<string>
  /** The address of another router. */
  readonly bootstrap: string
  readonly keys: ClusterKeys.ClusterKeyFile | undefined
  readonly environment?: Readonly<Record<string, string>>
}

/** Starts a mirror and waits until it is ready. */
const startMirror = Effect.fnUntraced(
  function*({ address, bootstrap, directory, environment, keys, name, store }: MirrorOptions) {
    const spegel = yield* SpegelProcess.start([
      "registry",
      ...store,
      `--data-dir=${join(directory, `${name}-data`)}`,
      ...MirrorPorts.flags(address, ports),
      "--bootstrap-kind=static",
      `--static-bootstrap-peers=${bootstrap}:${ports.router}`,
      ...(keys === undefined ? [] : [keys.flag, `--node-name=${name}`])
    ], environment)
    const url = `http://${address}:${ports.registry}`
    yield* Effect.mapError(
      SpegelProcess.untilReady(url),
      () => new MirrorNotReady({ url, output: spegel.output.stderr })
    )
    return { ...spegel, url }
  }
)

/** A containerd, and the directory of its mirror configuration. */
const startContainerd = Effect.fnUntraced(function*({ containerd: programs, settings }: LaneOptions) {
  const configPath = join(yield* temporary, "certs.d")
  const containerd = yield* ContainerdDaemon.start({
    programs,
    configPath,
    ...(settings === undefined ? {} : { settings })
  })
  // containerd 2 makes it with the first pull; a node that runs the mirror has pulled something.
  yield* Effect.promise(() => mkdir(containerd.contentPath, { recursive: true }))
  return { configPath, containerd }
})

const storeOf = ({ containerd }: Effect.Success<ReturnType<typeof startContainerd>>) => [
  "--store=containerd",
  `--containerd-sock=${containerd.socket}`,
  `--containerd-content-path=${containerd.contentPath}`
]

/** Starts everything that a lane consists of. */
export const start = Effect.fnUntraced(function*(options: LaneOptions) {
  const { client, hasKey, hasSecond, index } = options
  const addresses = addressesOf(index)
  yield* takeAddresses(addresses)
  const directory = yield* temporary
  const keyFile = join(directory, "cluster-key")
  const keys = hasKey ? yield* ClusterKeys.writeTo(keyFile) : undefined
  const goodRoot = join(directory, "good")
  const goodWriter = yield* OciLayoutWriter.make({ root: goodRoot })
  const clockFile = join(directory, "clock")
  yield* Effect.promise(() => writeFile(clockFile, "0"))
  const [upstream, own, faultPeer, other] = yield* Effect.all([
    Upstream.start,
    startContainerd(options),
    FaultPeerProcess.start({ link: `fault${index}`, address: `${addresses.fault}/24` }),
    hasSecond ? startContainerd(options) : Effect.undefined
  ], { concurrency: "unbounded" })
  const settable = {
    NODE_OPTIONS: `--import=${pathToFileURL(join(import.meta.dirname, "SettableClock.ts")).href}`,
    [SettableClock.variable]: clockFile
  }
  const mirror = (name: "node" | "good" | "second", store: ReadonlyArray<string>, bootstrap: string) =>
    ({ name, address: addresses[name], directory, store, bootstrap, keys }) satisfies MirrorOptions
  const [node, good, second] = yield* Effect.all([
    startMirror({ ...mirror("node", storeOf(own), addresses.good), environment: settable }),
    startMirror(mirror("good", [`--store=oci-layout:${goodRoot}`], addresses.node)),
    other === undefined ? Effect.undefined : startMirror(mirror("second", storeOf(other), addresses.node))
  ], { concurrency: "unbounded" })
  /** A node that pulls: its containerd, its mirror with what it prints, and the token that the one sends to the other. */
  const puller = (name: string, daemon: typeof own, { output, url }: typeof node) => ({
    ...daemon,
    output,
    url,
    token: keys?.tokenOf(name)
  })
  return {
    index,
    client,
    addresses,
    directory,
    node,
    good,
    goodRoot,
    goodWriter,
    upstream,
    faultPeer,
    clockFile,
    keyFile: hasKey ? keyFile : undefined,
    /** Header fields of a client that is none of the nodes' containerd: nobody downloads anything on its behalf. */
    headers: keys === undefined ? {} : { authorization: `Bearer ${keys.tokenOf("client")}` },
    pullers: [
      puller("node", own, node),
      ...(other === undefined || second === undefined ? [] : [puller("second", other, second)])
    ]
  }
})

export type LaneMembers = Effect.Success<ReturnType<typeof start>>

/** A node that pulls. */
export type PullingNode = LaneMembers["pullers"][number]
