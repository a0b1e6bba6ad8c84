/**
 * One cluster in which cells of the matrix run one after the other: a node with a real containerd and the mirror under
 * test, with the flags' defaults; a good peer; a fault peer; and an upstream registry. The two peers hold what a cell
 * gives them.
 */
import * as MirrorConfiguration from "@spegel-ts/containerd/MirrorConfiguration"
import * as OciLayoutWriter from "@spegel-ts/content/OciLayoutWriter"
import * as Reference from "@spegel-ts/oci/Reference"
import * as CriClient from "@spegel-ts/testing/containerd/CriClient"
import * as RandomImage from "@spegel-ts/testing/content/RandomImage"
import * as BusyPeer from "@spegel-ts/testing/node/BusyPeer"
import * as Lookup from "@spegel-ts/testing/node/Lookup"
import { Cause, Effect, Exit, Option, Redacted, Result, Schedule } from "effect"
import { rm } from "node:fs/promises"
import { join } from "node:path"
import type { Misbehaviour } from "./FaultServer.ts"
import * as LaneMembers from "./LaneMembers.ts"

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

const referenceOf = (name: string) => Result.getOrThrow(Reference.parse(name))

/** Gives a blob to the good peer alone; gives the URL at which the mirror under test relays it. */
const shareBallast = Effect.fnUntraced(function*({ goodWriter, headers, node, upstream }: LaneMembers.LaneMembers) {
  const reference = { registry: upstream.host, repository: "team/ballast", tag: "v1" }
  const { objects } = yield* RandomImage.write({
    writer: goodWriter,
    reference,
    layerSizes: [ballastBytes],
    seed: ballastSeed
  })
  const path = `blobs/${objects.at(-1)?.descriptor.digest}`
  yield* Lookup.untilFound(node.url, reference, [path], headers)
  return `${node.url}/v2/${reference.repository}/${path}?ns=${reference.registry}`
})

/** Gives images to the peers, and takes them away again. */
const sharing = (members: LaneMembers.LaneMembers) => {
  const { addresses, clockFile, directory, faultPeer, good, goodRoot, goodWriter, headers, index, keyFile, node } =
    members
  const { pullers, upstream } = members
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
        routerPort: LaneMembers.ports.router,
        registryPort: LaneMembers.ports.registry,
        bootstrap: [addresses.node, addresses.good].map((address) => `${address}:${LaneMembers.ports.router}`),
        keyFile,
        layout,
        name,
        objects: objects.map(({ descriptor: { digest, mediaType } }) => ({ digest, mediaType })),
        misbehaviour
      }, { peer: good.child.pid ?? 0, mirror: node.child.pid ?? 0, clockFile }),
    /** Waits until the mirror under test finds all of the image at its peers. */
    untilFound: (image: Image) => Lookup.untilFound(node.url, upstream.repository, Lookup.pathsOf(image), headers),
    /** Removes the image everywhere. */
    forget: Effect.fnUntraced(function*({ layout, name, objects, reference }: Image) {
      yield* Effect.forEach(pullers, ({ containerd }) => CriClient.removeImage(containerd.socket, name))
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

/** Pulls of a node's containerd. */
const pulling = (
  { client, upstream }: LaneMembers.LaneMembers,
  { configPath, containerd, output, token, url }: LaneMembers.PullingNode
) => {
  const configure = (from: "mirror" | "upstream") =>
    MirrorConfiguration.write({
      configPath,
      mirroredRegistries: [`http://${upstream.host}`],
      mirrorTargets: [from === "mirror" ? url : `http://${upstream.host}`],
      tagResolution: "mirror",
      prependExisting: false,
      basicAuth: Option.none(),
      token: from === "mirror" && token !== undefined ? Redacted.make(token) : undefined
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
    /** What its mirror has printed. */
    output,
    /** Pulls once, with the mirror first or from upstream alone; an answer that takes too long is a failure. */
    pull: Effect.fnUntraced(function*({ name }: Image, from: "mirror" | "upstream") {
      yield* configure(from)
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
export const start = Effect.fnUntraced(function*(options: LaneMembers.LaneOptions) {
  const members = yield* LaneMembers.start(options)
  const { faultPeer, good, headers, node, pullers: [own, second], upstream } = members
  if (own === undefined) return yield* Effect.die(new Error("a lane has a node that pulls"))
  const ballast = yield* shareBallast(members)
  return {
    upstream,
    node,
    faultPeer,
    /** Makes the mirror under test ask the fault peer before the good one, while the scope is open. */
    occupyGood: BusyPeer.occupy(ballast, busyRequests, headers),
    /** Lets the good peer continue after it was stopped. */
    thawGood: Effect.sync(() => good.child.kill("SIGCONT")),
    ...sharing(members),
    ...pulling(members, own),
    /** The second node, if there is one. */
    second: second === undefined ? undefined : pulling(members, second)
  }
})

export type Lane = Effect.Success<ReturnType<typeof start>>
