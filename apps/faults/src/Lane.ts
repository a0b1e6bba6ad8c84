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
import * as MirrorPorts from "@spegel-ts/testing/node/MirrorPorts"
import * as SpegelProcess from "@spegel-ts/testing/node/SpegelProcess"
import * as Upstream from "@spegel-ts/testing/node/Upstream"
import { Cause, Data, Effect, Exit, Option, Result, Schedule } from "effect"
import { mkdir, rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import * as FaultPeerProcess from "./FaultPeerProcess.ts"
import type { Misbehaviour } from "./FaultServer.ts"
import * as SettableClock from "./SettableClock.ts"

/** Who asks containerd to pull. */
export type Client = "CRI" | "ctr"

export interface LaneOptions {
  /** From 0; lanes that run at the same time have different ones. */
  readonly index: number
  readonly containerd: Containerd
  /** More of containerd's configuration. */
  readonly settings?: string
  readonly client: Client
}

export interface Image {
  readonly name: string
  readonly tag: string
  /** Where its blobs are. */
  readonly layout: string
  readonly seed: number
  readonly objects: RandomImage.RandomImage["objects"]
}

export interface Pull {
  readonly seconds: number
  /** What containerd said; undefined after success. */
  readonly error: string | undefined
}

/** A mirror process did not start well. */
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

/** A small layer, which mirrors check before they pass it on, and a large one, which streams. */
const layerSizes = [64 * kibibyte, 4.5 * 1024 * kibibyte]

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

export const start = Effect.fnUntraced(function*({ client, containerd: programs, index, settings }: LaneOptions) {
  const addresses = { node: `10.77.${index}.1`, good: `10.77.${index}.2`, fault: `10.77.${index}.3` }
  const address = (change: "add" | "delete", ip: string) =>
    NetworkNamespace.ip("address", change, `${ip}/24`, "dev", NetworkNamespace.bridge)
  yield* Effect.forEach(
    [addresses.node, addresses.good],
    (ip) => Effect.acquireRelease(address("add", ip), () => Effect.orDie(address("delete", ip)))
  )
  const directory = yield* Upstream.temporary
  const configPath = join(directory, "certs.d")
  const goodRoot = join(directory, "good")
  const goodWriter = yield* OciLayoutWriter.make({ root: goodRoot })
  const [upstream, containerd, faultPeer] = yield* Effect.all([
    Upstream.start,
    ContainerdDaemon.start({ programs, configPath, ...(settings === undefined ? {} : { settings }) }),
    FaultPeerProcess.start({ bridge: NetworkNamespace.bridge, link: `fault${index}`, address: `${addresses.fault}/24` })
  ], { concurrency: "unbounded" })
  // containerd 2 makes it with the first pull; a node that runs the mirror has pulled something.
  yield* Effect.promise(() => mkdir(containerd.contentPath, { recursive: true }))
  const store = [
    "--store=containerd",
    `--containerd-sock=${containerd.socket}`,
    `--containerd-content-path=${containerd.contentPath}`
  ]
  const clockFile = join(directory, "clock")
  yield* Effect.promise(() => writeFile(clockFile, "0"))
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
  const lacking = (image: Image) =>
    Effect.map(
      containerd.ctr("content", "ls", "-q"),
      (listed) => image.objects.map(({ descriptor }) => descriptor.digest).filter((digest) => !listed.includes(digest))
    )

  let images = 0
  return {
    upstream,
    node,
    faultPeer,
    /** An image of which nobody has anything but upstream. */
    image: Effect.fnUntraced(function*(sizes: ReadonlyArray<number> = layerSizes) {
      const seed = index * 1_000_000 + ++images
      const tag = `v${seed}`
      const name = `${upstream.host}/team/app:${tag}`
      const layout = join(directory, tag)
      const writer = yield* OciLayoutWriter.make({ root: layout })
      const reference = Result.getOrThrow(Reference.parse(name))
      const written = yield* RandomImage.write({ writer, reference, layerSizes: sizes, seed })
      yield* upstream.publish(writer, written, tag)
      return { name, tag, layout, seed, objects: written.objects } satisfies Image
    }),
    /** Gives the image to the good peer, which then advertises it. */
    shareWithGood: (image: Image) =>
      RandomImage.write({
        writer: goodWriter,
        reference: Result.getOrThrow(Reference.parse(image.name)),
        layerSizes,
        seed: image.seed
      }),
    /** Gives the image to the fault peer, which is a new member of the network each time. */
    shareWithFault: (image: Image, misbehaviour: Misbehaviour) =>
      faultPeer.start({
        host: addresses.fault,
        routerPort: ports.router,
        registryPort: ports.registry,
        bootstrap: [addresses.node, addresses.good].map((address) => `${address}:${ports.router}`),
        layout: image.layout,
        name: image.name,
        objects: image.objects.map(({ descriptor: { digest, mediaType } }) => ({ digest, mediaType })),
        misbehaviour
      }, { peer: good.child.pid ?? 0, mirror: node.child.pid ?? 0, clockFile }),
    /** Lets the good peer go on, where it was stopped. */
    thawGood: Effect.sync(() => good.child.kill("SIGCONT")),
    /** Pulls once, with the mirror first or from upstream alone; an answer that takes too long is a failure. */
    pull: Effect.fnUntraced(function*(image: Image, from: "mirror" | "upstream") {
      yield* configure(from === "mirror" ? node.url : `http://${upstream.host}`)
      const started = performance.now()
      const exit = yield* Effect.exit(ask(image.name).pipe(Effect.timeout(pullLimit)))
      const seconds = (performance.now() - started) / 1000
      return {
        seconds,
        error: Exit.isSuccess(exit) ? undefined : Cause.prettyErrors(exit.cause).map(String).join("; ").trim()
      } satisfies Pull
    }),
    /** Digests of the image that containerd lacks after all; what it has, it has verified. */
    lacking: (image: Image) =>
      Effect.map(
        containerd.ctr("content", "ls", "-q"),
        (listed) =>
          image.objects.map(({ descriptor }) => descriptor.digest).filter((digest) => !listed.includes(digest))
      ),
    /** Takes the image away from the node, until nothing of it is left there. */
    collect: (image: Image) =>
      CriClient.removeImage(containerd.socket, image.name).pipe(
        Effect.andThen(lacking(image)),
        Effect.filterOrFail((digests) => digests.length === image.objects.length, () => "still there" as const),
        Effect.retry({ schedule: Schedule.spaced("50 millis"), times: 200 })
      ),
    /** Takes the image away from everybody. */
    forget: Effect.fnUntraced(function*(image: Image) {
      yield* CriClient.removeImage(containerd.socket, image.name)
      yield* goodWriter.untag(Result.getOrThrow(Reference.parse(image.name)))
      yield* Effect.promise(async () => {
        for (const { descriptor: { digest } } of image.objects) {
          await rm(join(goodRoot, "blobs", "sha256", digest.replace("sha256:", "")), { force: true })
        }
        await rm(image.layout, { recursive: true, force: true })
      })
      yield* upstream.clear
      upstream.state.requests.length = 0
    })
  }
})

export type Lane = Effect.Success<ReturnType<typeof start>>
