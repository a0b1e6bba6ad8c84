/**
 * One pull: a client's request for content that this node lacks. Its steps are files of this folder, in this order: `PullPeers`
 * finds peers; `PeerRace` asks them (`AskPeer`), hedging; `Hold` reads and verifies what is small, and `ElectTag` compares what
 * peers say of a tag; `Relay` passes on what is large, and `GoOn` switches to another peer if one fails.
 *
 * The steps are functions of their modules and not closures of a pull: V8 keeps all that the closure of a generator function
 * refers to until its next major collection (the hidden class of its generators is in the old generation from the start), and
 * those collections made requests late.
 */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import * as ByteRange from "@spegel-ts/oci/ByteRange"
import type { Reference } from "@spegel-ts/oci/Reference"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import type { Peer } from "@spegel-ts/router/Peer"
import { Effect, type Fiber, Option, Scope } from "effect"
import * as ContentId from "../../ContentId.ts"
import { Outcome } from "../../Outcome.ts"
import type { CircuitBreaker, PeerTime } from "../mirror/CircuitBreaker.ts"
import * as PeerAddress from "../mirror/PeerAddress.ts"
import * as PeerAnswer from "../mirror/PeerAnswer.ts"
import * as PeerSpans from "../observe/PeerSpans.ts"
import type { PullRecord } from "../observe/PullRecord.ts"
import * as RegistryMetrics from "../observe/RegistryMetrics.ts"
import * as CommitWatch from "../verify/CommitWatch.ts"
import type { Won } from "./Attempt.ts"
import * as Blame from "./Blame.ts"
import { Comparisons } from "./MinimumThroughput.ts"
import type { MirrorParts } from "./MirrorParts.ts"
import * as PullPeers from "./PullPeers.ts"

/** A client's request. */
export interface Asked {
  readonly request: ContentId.ContentRequest
  /** The image that it is for. */
  readonly name: Reference
  /** The steps note in it what they do. */
  readonly record: PullRecord
  /** The client's `User-Agent`. */
  readonly userAgent: string
  /** Whether this node's own containerd asks: only then does a download of it show whether peers sent the right bytes. */
  readonly own: boolean
}

export interface Pull extends Asked {
  readonly mirror: MirrorParts
  readonly content: ContentId.ContentId
  /** The range to ask peers for; undefined for the whole. */
  readonly range: string | undefined
  readonly peers: PullPeers.PullPeers
  readonly breaker: CircuitBreaker
  readonly peerTime: PeerTime
  /** Looks for containerd's download that the pull is for, from the first question to a peer on. */
  readonly download: Effect.Effect<Fiber.Fiber<CommitWatch.Download>>
  readonly comparisons: Comparisons
  /** Whether it takes content of downloads that other nodes have in progress: only this node's own containerd gets it. */
  readonly mayFollow: boolean
  /** Runs something beside the pull, until the pull ends. */
  readonly fork: (effect: Effect.Effect<void>) => void
}

/** Begins a pull, and looks up its peers. It ends with the scope. */
export const begin = Effect.fnUntraced(function*(mirror: MirrorParts, asked: Asked) {
  const { name: { registry }, own, record, request } = asked
  const { breakers, commits, memory, options, router, schedule } = mirror
  const content = ContentId.of(request, asked.name)
  const range = PeerAnswer.rangeOf(request)
  const scope = yield* Effect.scope
  const run = Effect.runForkWith(yield* Effect.context())
  const breaker = breakers.of(registry)
  const peerTime = breaker.admit(yield* MonotonicTime.millis)
  const download = yield* Effect.cached(
    downloadOf(mirror, asked, range).pipe(Scope.provide(scope), Effect.forkIn(scope))
  )
  if (own && request.method === "GET" && request._tag === "Blob" && range === undefined) {
    yield* commits.doubt(request.digest)
    if (request.range !== undefined) mirror.inParts.set(request.digest, true)
  }
  const key = ContentKey.make(ContentId.print(content))
  const peers = yield* PullPeers.make({
    content,
    lookup: (count) => PeerSpans.peerLookup(router.lookup(key, { count })),
    memory,
    caution: peerTime === "little" ? `is asked for ${registry}, where peers keep requests waiting` : undefined,
    provedFirst: content._tag === "Tag" && mirror.peerAuth !== "off",
    record,
    retries: options.resolveRetries,
    resolveTimeout: options.resolveTimeout,
    schedule
  })
  yield* peers.startLookup
  const fork = (effect: Effect.Effect<void>) => void run(Effect.forkIn(effect, scope))
  const comparisons = new Comparisons()
  const mayFollow = mirror.shares && own && request.method === "GET" &&
    (request._tag === "Blob"
      ? range === undefined || !isPartOfMany(mirror, request)
      : options.inProgress === "single-flight" && content._tag === "Digest")
  return {
    ...asked,
    mirror,
    content,
    range,
    peers,
    breaker,
    peerTime,
    download,
    comparisons,
    mayFollow,
    fork
  } satisfies Pull
})

/**
 * Whether containerd may ask for further parts, of which each has to be served once one was: it fails the pull otherwise (2.1 and later, with
 * `concurrent_layer_fetch_buffer`). A download in progress may not have them. It is in its first request that it says so.
 */
const isPartOfMany = (
  { inParts }: MirrorParts,
  request: Extract<ContentId.ContentRequest, { readonly _tag: "Blob" }>
) => inParts.has(request.digest)

/** The download of containerd that a request is for. Its fate shows whether peers sent the right bytes. */
const downloadOf = (mirror: MirrorParts, { own, request, userAgent }: Asked, range: string | undefined) => {
  if (request._tag === "Manifest") return Effect.succeed(CommitWatch.noDownload)
  const start = range === undefined ? Option.some(0) : ByteRange.openStart(range)
  const { digest, method } = request
  return mirror.commits.begin({
    digest,
    start: own && method === "GET" ? start : Option.none(),
    userAgent,
    told: (verdict) => Blame.judge(mirror, request, digest, verdict)
  })
}

/** A peer gave all that it was asked for. */
export const served = (
  { breaker, content, mirror }: Pull,
  { entry, peer, value }: Won<{ readonly peer: Peer }>
): void => {
  entry.outcome = Outcome.Served()
  mirror.memory.served(peer, content, PeerAddress.of(value.peer))
  breaker.succeeded()
}

/** No peer served the pull. A fast 404 is not a failure: only failures that cost time count towards opening the circuit. */
export const countFailure = (
  { peerTime, breaker, name: { registry, repository }, peers: { keptWaitingBy, lostTime } }: Pull
): Effect.Effect<void> =>
  Effect.flatMap(
    MonotonicTime.millis,
    (now) =>
      breaker.failed({ peerTime, repository, lostTime, addresses: keptWaitingBy }, now)
        ? Effect.andThen(
          RegistryMetrics.circuitOpened(registry),
          Effect.logWarning(`peers keep requests for ${registry} waiting: they get little time for a while`)
        )
        : Effect.void
  )
