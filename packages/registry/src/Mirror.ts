/**
 * Gets content that this node lacks from peers: chooses whom to ask, and goes on when a peer fails. Every failure has a tag, and
 * the tag decides the next step. How long and how often peers are asked is in `ResolvePolicy`; the steps of a pull are in
 * `internal/pull/Pull`.
 */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import type * as ByteRange from "@spegel-ts/oci/ByteRange"
import type * as Digest from "@spegel-ts/oci/Digest"
import { type Duration, Effect, type Scope } from "effect"
import { maxListed, type OpenCircuit, type PausedPeer } from "./Activity.ts"
import type { ContentRequest } from "./ContentId.ts"
import * as Decide from "./internal/flight/Decide.ts"
import type * as Lease from "./internal/flight/Lease.ts"
import * as MirrorParts from "./internal/pull/MirrorParts.ts"
import * as Obtain from "./internal/pull/Obtain.ts"
import type { Asked } from "./internal/pull/Pull.ts"
import type { Evidence } from "./internal/share/Evidence.ts"
import type { MirroredContent } from "./MirroredContent.ts"
import type { MirrorError } from "./MirrorError.ts"
import type { ResolveSettings } from "./ResolvePolicy.ts"

/** How content is pulled from peers: the limits on waiting, and how much of a body is verified before it is sent. */
export interface MirrorOptions extends ResolveSettings {
  /**
   * Whether this node's containerd gets layers from downloads that other nodes have in progress, and those from its own: `share`.
   * `single-flight`: of nodes that want the same content at once, one downloads it from upstream, and the others wait for it. Only
   * nodes that have proved that they know the cluster key take part. `off`: only complete content.
   */
  readonly inProgress: "off" | "share" | "single-flight"
  /** How long a pull waits without a byte for a download that another node shows to go on. */
  readonly inProgressWait: Duration.Duration
  /** With `single-flight`: how many nodes may download the same content from upstream at once. */
  readonly upstreamConcurrency: number
  /**
   * How bodies are verified that are too large to be held: `commit` passes them on and watches whether containerd commits
   * them; `stream` hashes them on the way and holds their end back.
   */
  readonly verify: "commit" | "stream"
  /** Bodies up to this size in bytes are verified before any byte of them is answered. */
  readonly verifySize: number
  /** Memory in bytes that all bodies held for that may have together; blobs beyond it are relayed as large ones are. */
  readonly verifyMemory: number
  /** How long a peer's word that it holds something is believed. */
  readonly recordTtl: Duration.Duration
  /** After this many requests in a row that waited in vain, a registry's circuit opens; 0: never. */
  readonly circuitFailures: number
  /** How long it is open at first; twice as long after each probe that fails. */
  readonly circuitPause: Duration.Duration
}

/** Gets content that this node lacks from peers. `Registry` calls it for each request. */
export interface Mirror {
  /** Whether this node shares downloads in progress with others. */
  readonly shares: boolean
  /** What its sources show it of downloads from upstream. */
  readonly evidence: Evidence
  /**
   * Finds a peer that has the content that a client asks for, and returns when its answer can begin. Everything that is opened
   * closes with the scope. Fails with a `MirrorError` if no peer serves in time: the request falls back to upstream. Fails with
   * `RangeNotSatisfiable` if the range begins beyond the end of the content (RFC 9110, section 15.5.17).
   */
  readonly fetch: (
    asked: Asked
  ) => Effect.Effect<MirroredContent, MirrorError | ByteRange.RangeNotSatisfiable, Scope.Scope>
  /** The registries whose circuits are open. */
  readonly circuits: Effect.Effect<ReadonlyArray<OpenCircuit>>
  /** The members of the network that are asked after others now, whatever is asked for. */
  readonly paused: Effect.Effect<ReadonlyArray<PausedPeer>>
  /** Decides for a peer whether it downloads content from upstream, or for whom it waits. */
  readonly decide: (
    request: ContentRequest,
    digest: Digest.Digest,
    asked: Lease.Asked
  ) => Effect.Effect<Lease.Decision>
}

/** A mirror; what it watches ends with the scope. */
export const make = Effect.fn("Mirror.make")(function*(options: MirrorOptions) {
  const parts = yield* MirrorParts.make(options)
  const { breakers, evidence, memory, router, shares } = parts
  return {
    shares,
    evidence,
    fetch: (asked) => Obtain.content(parts, asked),
    circuits: Effect.map(MonotonicTime.millis, (now) => breakers.open(now)),
    paused: Effect.zipWith(
      MonotonicTime.millis,
      router.peers,
      (now, peers) =>
        peers.flatMap((peer): ReadonlyArray<PausedPeer> => {
          const objection = memory.pause(peer, now)
          return objection === undefined
            ? []
            : [{ id: peer.id, reason: objection.reason, millis: objection.until - now }]
        }).slice(0, maxListed)
    ),
    decide: (request, digest, asked) => Decide.forPeer(parts, request, digest, asked)
  } satisfies Mirror
})
