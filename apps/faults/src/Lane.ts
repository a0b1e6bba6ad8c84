/**
 * One cluster in which cells of the matrix run one after the other: a node with a real containerd and the mirror under
 * test, with the flags' defaults; a good peer; a fault peer; and an upstream registry. The two peers hold what a cell
 * gives them.
 */
import * as MirrorConfiguration from "@spegel-ts/containerd/MirrorConfiguration"
import * as OciLayoutWriter from "@spegel-ts/content/OciLayoutWriter"
import * as Reference from "@spegel-ts/oci/Reference"
import * as ContainerdDaemon from "@spegel-ts/testing/containerd/ContainerdDaemon"
import type { Containerd } from "@spegel-ts/testing/containerd/ContainerdPackages"
import * as CriClient from "@spegel-ts/testing/containerd/CriClient"
import * as RandomImage from "@spegel-ts/testing/content/RandomImage"
import * as NetworkNamespace from "@spegel-ts/testing/network/NetworkNamespace"
import * as BusyPeer from "@spegel-ts/testing/node/BusyPeer"
import * as Lookup from "@spegel-ts/testing/node/Lookup"
import * as MirrorPorts from "@spegel-ts/testing/node/MirrorPorts"
import * as SpegelProcess from "@spegel-ts/testing/node/SpegelProcess"
import * as Upstream from "@spegel-ts/testing/node/Upstream"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Cause, Data, Effect, Exit, Option, Result, Schedule } from "effect"
import { mkdir, rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import * as FaultPeerProcess from "./FaultPeerProcess.ts"
import type { Misbehaviour } from "./FaultServer.ts"
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
}

/** An image of the upstream registry. */
export interface Image extends RandomImage.RandomImage {
  /** With registry and tag. */
  readonly name: string
  /** The image layout that has its blobs. */
  readonly layout: string
  readonly seed: number
}

/** The outcome of a pull of containerd. */
export interface Pull {
  readonly seconds: number
  /** The error of containerd; undefined after success. */
  readonly error: string | undefined
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

const ports = { registry: 5000, router: 5001, metrics: 9090 }
const pullLimit = "60 seconds"
const kibibyte = 1024
/** Images of lanes have lower seeds. */
const ballastSeed = 16_000_000

/** A small layer, which mirrors verify before they send it, and a large one, which they stream. */
const layerSizes = [64 * kibibyte, 4.5 * 1024 * kibibyte]

/**
 * Requests that keep the good peer busy. A peer that answered later than another counts for ten seconds as if it had four more;
 * the fault peer, to which each connection is new, may be such a one.
 */
const busyRequests = 6

/** More than the buffers of the sockets between a peer and a client that does not read. */
const ballastBytes = 32 * 1024 * kibibyte

const startSpegel = Effect.fnUntraced(
  function*(
    address: string,
    directory: string,
    store: ReadonlyArray<string>,
    bootstrap: string,
    environment?: Readonly<Record<string, string>>
  ) {
    const spegel = yield* SpegelProcess.start([
      "registry",
      ...store,
      `--data-dir=${join(directory, "data")}`,
      ...MirrorPorts.flags(address, ports),
      "--bootstrap-kind=static",
      `--static-bootstrap-peers=${bootstrap}:${ports.router}`
    ], environment)
    return { ...spegel, url: `http://${address}:${ports.registry}` }
  }
)

const addressesOf = (index: number) => ({
  node: `10.77.${index}.1`,
  good: `10.77.${index}.2`,
  fault: `10.77.${index}.3`
})

/** Gives the addresses of the two mirrors to the bridge, while the scope is open. */
const takeAddresses = Effect.fnUntraced(function*({ good, node }: ReturnType<typeof addressesOf>) {
  const change = (change: "add" | "delete", address: string) =>
    NetworkNamespace.ip("address", change, `${address}/24`, "dev", NetworkNamespace.bridge)
  yield* Effect.forEach(
    [node, good],
    (address) => Effect.acquireRelease(change("add", address), () => Effect.orDie(change("delete", address)))
  )
})

const startMirrors = Effect.fnUntraced(function*(options: {
  readonly addresses: ReturnType<typeof addressesOf>
  readonly directory: string
  readonly containerd: Daemon
  readonly goodRoot: string
  readonly clockFile: string
}) {
  const { addresses, clockFile, containerd, directory, goodRoot } = options
  const store = [
    "--store=containerd",
    `--containerd-sock=${containerd.socket}`,
    `--containerd-content-path=${containerd.contentPath}`
  ]
  const settable = {
    NODE_OPTIONS: `--import=${pathToFileURL(join(import.meta.dirname, "SettableClock.ts")).href}`,
    [SettableClock.variable]: clockFile
  }
  const [node, good] = yield* Effect.all([
    startSpegel(addresses.node, join(directory, "node"), store, addresses.good, settable),
    startSpegel(addresses.good, join(directory, "good-data"), [`--store=oci-layout:${goodRoot}`], addresses.node)
  ], { concurrency: "unbounded" })
  yield* Effect.forEach([node, good], ({ output, url }) =>
    SpegelProcess.untilReady(url).pipe(
      Effect.mapError(() => new MirrorNotReady({ url, output: output.stderr }))
    ))
  return { node, good }
})

type Daemon = Effect.Success<ReturnType<typeof ContainerdDaemon.start>>

/** Starts everything that a lane consists of. */
const startMembers = Effect.fnUntraced(function*({ client, containerd: programs, index, settings }: LaneOptions) {
  const addresses = addressesOf(index)
  yield* takeAddresses(addresses)
  const directory = yield* temporary
  const configPath = join(directory, "certs.d")
  const goodRoot = join(directory, "good")
  const goodWriter = yield* OciLayoutWriter.make({ root: goodRoot })
  const [upstream, containerd, faultPeer] = yield* Effect.all([
    Upstream.start,
    ContainerdDaemon.start({ programs, configPath, ...(settings === undefined ? {} : { settings }) }),
    FaultPeerProcess.start({ link: `fault${index}`, address: `${addresses.fault}/24` })
  ], { concurrency: "unbounded" })
  // containerd 2 makes it with the first pull; a node that runs the mirror has pulled something.
  yield* Effect.promise(() => mkdir(containerd.contentPath, { recursive: true }))
  const clockFile = join(directory, "clock")
  yield* Effect.promise(() => writeFile(clockFile, "0"))
  const mirrors = yield* startMirrors({ addresses, directory, containerd, goodRoot, clockFile })
  return {
    ...mirrors,
    index,
    client,
    addresses,
    directory,
    configPath,
    goodRoot,
    goodWriter,
    upstream,
    containerd,
    faultPeer,
    clockFile
  }
})

type Members = Effect.Success<ReturnType<typeof startMembers>>

const referenceOf = (name: string) => Result.getOrThrow(Reference.parse(name))

/** Gives a blob to the good peer alone; gives the URL at which the mirror under test relays it. */
const shareBallast = Effect.fnUntraced(function*({ goodWriter, node, upstream }: Members) {
  const reference = { registry: upstream.host, repository: "team/ballast", tag: "v1" }
  const { objects } = yield* RandomImage.write({
    writer: goodWriter,
    reference,
    layerSizes: [ballastBytes],
    seed: ballastSeed
  })
  const path = `blobs/${objects.at(-1)?.descriptor.digest}`
  yield* Lookup.untilFound(node.url, reference, [path])
  return `${node.url}/v2/${reference.repository}/${path}?ns=${reference.registry}`
})

/** Gives images to the peers, and takes them away again. */
const sharing = (
  { addresses, clockFile, containerd, directory, faultPeer, good, goodRoot, goodWriter, index, node, upstream }: Members
) => {
  let images = 0
  return {
    /** Makes an image that upstream alone has. */
    image: Effect.fnUntraced(function*(sizes: ReadonlyArray<number> = layerSizes) {
      const seed = index * 1_000_000 + ++images
      const tag = `v${seed}`
      const name = `${upstream.host}/team/app:${tag}`
      const layout = join(directory, tag)
      const writer = yield* OciLayoutWriter.make({ root: layout })
      const written = yield* RandomImage.write({ writer, reference: referenceOf(name), layerSizes: sizes, seed })
      yield* upstream.publish(writer, written, tag)
      return { ...written, name, layout, seed } satisfies Image
    }),
    /** Gives the image to the good peer, which then advertises it. */
    shareWithGood: ({ reference, seed }: Image) =>
      RandomImage.write({ writer: goodWriter, reference, layerSizes, seed }),
    /** Gives the image to the fault peer, which is a new member of the network each time. */
    shareWithFault: ({ layout, name, objects }: Image, misbehaviour: Misbehaviour) =>
      faultPeer.start({
        host: addresses.fault,
        routerPort: ports.router,
        registryPort: ports.registry,
        bootstrap: [addresses.node, addresses.good].map((address) => `${address}:${ports.router}`),
        layout,
        name,
        objects: objects.map(({ descriptor: { digest, mediaType } }) => ({ digest, mediaType })),
        misbehaviour
      }, { peer: good.child.pid ?? 0, mirror: node.child.pid ?? 0, clockFile }),
    /** Waits until the mirror under test finds all of the image at its peers. */
    untilFound: (image: Image) => Lookup.untilFound(node.url, upstream.repository, Lookup.pathsOf(image)),
    /** Removes the image everywhere. */
    forget: Effect.fnUntraced(function*({ layout, name, objects, reference }: Image) {
      yield* CriClient.removeImage(containerd.socket, name)
      yield* goodWriter.untag(reference)
      yield* Effect.promise(async () => {
        for (const { descriptor: { digest } } of objects) {
          await rm(join(goodRoot, "blobs", "sha256", digest.replace("sha256:", "")), { force: true })
        }
        await rm(layout, { recursive: true, force: true })
      })
      yield* upstream.clear
      upstream.state.requests.length = 0
    })
  }
}

/** Pulls of the node's containerd. */
const pulling = ({ client, configPath, containerd, node, upstream }: Members) => {
  const configure = (target: string) =>
    MirrorConfiguration.write({
      configPath,
      mirroredRegistries: [`http://${upstream.host}`],
      mirrorTargets: [target],
      tagResolution: "mirror",
      prependExisting: false,
      basicAuth: Option.none()
    })
  const ask = (name: string): Effect.Effect<unknown, Error> =>
    client === "CRI"
      ? CriClient.pullImage(containerd.socket, name)
      : containerd.ctr("images", "pull", "--hosts-dir", configPath, name)
  /** Digests of the image that containerd lacks; what it has, it has verified. */
  const lacking = ({ objects }: Image) =>
    Effect.map(
      containerd.ctr("content", "ls", "-q"),
      (listed) => objects.map(({ descriptor }) => descriptor.digest).filter((digest) => !listed.includes(digest))
    )
  return {
    lacking,
    /** Pulls once, with the mirror first or from upstream alone; an answer that takes too long is a failure. */
    pull: Effect.fnUntraced(function*({ name }: Image, from: "mirror" | "upstream") {
      yield* configure(from === "mirror" ? node.url : `http://${upstream.host}`)
      const started = performance.now()
      const exit = yield* Effect.exit(ask(name).pipe(Effect.timeout(pullLimit)))
      const seconds = (performance.now() - started) / 1000
      return {
        seconds,
        error: Exit.isSuccess(exit) ? undefined : Cause.prettyErrors(exit.cause).map(String).join("; ").trim()
      } satisfies Pull
    }),
    /** Removes the image from the node; ends when nothing of it is left. */
    collect: (image: Image) =>
      CriClient.removeImage(containerd.socket, image.name).pipe(
        Effect.andThen(lacking(image)),
        Effect.filterOrFail((digests) => digests.length === image.objects.length, () => "still there" as const),
        Effect.retry({ schedule: Schedule.spaced("50 millis"), times: 200 })
      )
  }
}

/** Starts a cluster, which ends with the scope. Fails if one of its members does not become ready. */
export const start = Effect.fnUntraced(function*(options: LaneOptions) {
  const members = yield* startMembers(options)
  const { faultPeer, good, node, upstream } = members
  const ballast = yield* shareBallast(members)
  return {
    upstream,
    node,
    faultPeer,
    /** Makes the mirror under test ask the fault peer before the good one, while the scope is open. */
    occupyGood: BusyPeer.occupy(ballast, busyRequests),
    /** Lets the good peer continue after it was stopped. */
    thawGood: Effect.sync(() => good.child.kill("SIGCONT")),
    ...sharing(members),
    ...pulling(members)
  }
})

export type Lane = Effect.Success<ReturnType<typeof start>>
