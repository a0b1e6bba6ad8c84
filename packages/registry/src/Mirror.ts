/**
 * The resolve policy: who is asked for content that this node lacks, how long, how often, and what happens when a peer
 * fails. Every failure has a tag, and the tag decides the next step.
 *
 * A request goes through these states: look up; ask peers in a race (`PeerRace`); hold and verify what is small, or
 * stream what is large; where a peer fails, ask again, in a stream at the byte reached; answered, or given up. What a
 * peer did before decides when it is asked (`Candidates`); only wrong bytes exclude it.
 */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import * as ByteRange from "@spegel-ts/oci/ByteRange"
import type * as Digest from "@spegel-ts/oci/Digest"
import * as Reference from "@spegel-ts/oci/Reference"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import type { Peer } from "@spegel-ts/router/Peer"
import { Router } from "@spegel-ts/router/Router"
import { Duration, Effect, Fiber, Option, Result, Schedule, Scope, Stream } from "effect"
import type { Recipient } from "./BlobBody.ts"
import type { BodyInterrupted } from "./BodyInterrupted.ts"
import { Circuits } from "./Circuit.ts"
import * as HeldBodies from "./HeldBodies.ts"
import * as LargeBody from "./LargeBody.ts"
import * as LocalIngests from "./LocalIngests.ts"
import { AnswerTimeout, ContentCorrupted, type MirrorError, PeerRefused, PeerSuspected } from "./MirrorError.ts"
import * as Offer from "./Offer.ts"
import { PeerMemory } from "./PeerMemory.ts"
import * as PeerRace from "./PeerRace.ts"
import { PeerSpeeds } from "./PeerSpeeds.ts"
import type { PullRecord } from "./PullLedger.ts"
import * as PullSpans from "./PullSpans.ts"
import * as RegistryMetrics from "./RegistryMetrics.ts"
import * as SpeedComparison from "./SpeedComparison.ts"
import * as TagElection from "./TagElection.ts"
import * as Warnings from "./Warnings.ts"

export interface MirrorOptions {
  /** How long to wait for a peer to be found while none is being asked. */
  readonly resolveTimeout: Duration.Duration
  /** How many peers may be tried to begin an answer, and again to go on with one that a peer left unfinished. */
  readonly resolveRetries: number
  /** How long a peer may take to send the first byte of a body. */
  readonly firstByteTimeout: Duration.Duration
  /**
   * How long a first byte may take before another peer is asked beside, until past times tell it better; and how long
   * other providers of a tag are waited for.
   */
  readonly hedgeDelay: Duration.Duration
  /** How long a HEAD or a manifest may take, whatever peers do. */
  readonly answerTimeout: Duration.Duration
  /** Bodies to this size in bytes are verified before any of them is answered. */
  readonly verifySize: number
  /** How larger ones are: by containerd, whose commit is watched, or in this process, on their way. */
  readonly verify: "commit" | "stream"
  /** Bytes that all bodies held for that may have together; blobs beyond it stream as large ones do. */
  readonly verifyMemory: number
  /** How long what a peer says it holds is believed. */
  readonly recordTtl: Duration.Duration
  /** After so many requests in a row that waited in vain, a registry's peers get little time for a while; 0: never. */
  readonly circuitFailures: number
  /** How long at first; twice as long after each probe that fails. */
  readonly circuitPause: Duration.Duration
}

/** Content that peers have and will send. */
export interface MirroredContent {
  readonly peer: Peer
  readonly digest: Digest.Digest
  readonly mediaType: string
  /** Size of the whole in bytes. */
  readonly size: number
  /** The part that `body` gives; none for the whole. */
  readonly range: Option.Option<ByteRange.ByteRange>
  readonly body: MirroredBody
}

export type MirroredBody =
  | { readonly _tag: "Verified"; readonly bytes: Uint8Array }
  | {
    readonly _tag: "Stream"
    /** Fails when no peer is left that can go on, and where the bytes are known to be wrong. */
    readonly relay: (to: Recipient) => Effect.Effect<void, StreamError>
  }

export interface Mirror {
  /** The content asked for, from peers; what is done goes to `record`. All that it opens closes with the scope. */
  readonly fetch: (
    request: Offer.ContentRequest,
    name: Reference.Reference,
    record: PullRecord
  ) => Effect.Effect<MirroredContent, MirrorError | ByteRange.RangeNotSatisfiable, Scope.Scope>
}

type StreamError = MirrorError | ContentCorrupted | BodyInterrupted

type Winner = PeerRace.Won<Offer.Offer>

/** A peer that gave so much was worth asking: the peers after it are counted anew. */
const worthwhileBytes = 1024 * 1024

/** The digest or tag that a request asks for: what it is advertised under. */
export const contentOf = (request: Offer.ContentRequest, name: Reference.Reference): string =>
  request._tag === "Blob"
    ? request.digest
    : request.reference._tag === "Digest"
    ? request.reference.digest
    : Reference.name(name)

export const make = Effect.fn("Mirror.make")(function*(options: MirrorOptions) {
  const router = yield* Router
  const ingests = yield* LocalIngests.make
  const held = yield* HeldBodies.make(options.verifyMemory)
  const { ask, complain } = yield* Offer.make(options)
  const warnings = yield* Warnings.make(options)
  const whole = yield* Effect.scope
  const { answerTimeout, hedgeDelay, resolveRetries, resolveTimeout, verifySize } = options
  const memory = new PeerMemory({
    hedgeMillis: Duration.toMillis(hedgeDelay),
    recordMillis: Duration.toMillis(options.recordTtl)
  })
  const hedging = Schedule.forever.pipe(
    Schedule.modifyDelay(() => Effect.sync(() => Duration.millis(memory.hedgeMillis)))
  )
  const speeds = new PeerSpeeds()
  const circuits = new Circuits({
    failures: options.circuitFailures,
    pauseMillis: Duration.toMillis(options.circuitPause)
  })

  const fetch = Effect.fnUntraced(function*(
    request: Offer.ContentRequest,
    name: Reference.Reference,
    record: PullRecord
  ) {
    const content = contentOf(request, name)
    const circuit = circuits.of(name.registry)
    if (request.method === "GET" && request._tag === "Blob") yield* ingests.serving(request.digest)

    const peers = yield* PeerRace.make({
      content,
      lookup: (count) =>
        router.lookup(ContentKey.make(content), { count }).pipe(
          PullSpans.peerLookup,
          Stream.catch((error) => Stream.fromEffect(Effect.logDebug(error.message)).pipe(Stream.drain))
        ),
      memory,
      caution: circuit.isOpen(yield* MonotonicTime.millis)
        ? `is asked for ${name.registry}, where peers keep requests waiting`
        : undefined,
      record,
      retries: resolveRetries,
      resolveTimeout,
      hedging
    })

    /** A fast answer is no failure, whatever it is. Only time that was lost counts. */
    const countFailure = Effect.gen(function*() {
      if (!peers.lostTime() || !circuit.failed(yield* MonotonicTime.millis)) return
      yield* RegistryMetrics.circuitOpened(name.registry)
      yield* Effect.logWarning(`peers keep requests for ${name.registry} waiting: they get little time for a while`)
    })

    const served = ({ entry, peer }: PeerRace.Attempt) => {
      entry.outcome = "served"
      memory.served(peer, content)
      circuit.succeeded()
    }

    /** Bytes were wrong: nobody who sent any of them is asked for this content again. */
    const exclude = Effect.fnUntraced(function*(error: ContentCorrupted, senders: ReadonlyArray<Peer>) {
      const [only, ...more] = senders
      // When several peers sent parts, we cannot tell which one was wrong.
      if (only !== undefined && more.length === 0) yield* Effect.forkIn(complain(request, only), whole)
      memory.corrupted(senders, content, yield* MonotonicTime.millis)
      yield* RegistryMetrics.corrupted
      yield* Effect.logWarning(`${error.message}: not asked for it any more`).pipe(
        Effect.annotateLogs({ peers: senders.map(({ id }) => id).join(", "), content })
      )
    })

    /** Leaves a peer of which others warn: what it sends would be passed on before it is known to be right. */
    const isSuspected = Effect.fnUntraced(function*(won: Winner) {
      const { peer, value: { digest } } = won
      const suspected = yield* warnings.heard(peer, digest)
      if (suspected) yield* peers.leave(won, new PeerSuspected({ peer: Offer.nameOf(peer), content: digest }))
      return suspected
    })

    const range = Offer.rangeOf(request)

    // Read beside the first question to a peer: where there is nobody to ask, nothing has to be known.
    const sizing = yield* Effect.cached(
      Effect.forkIn(
        request._tag === "Blob" ? ingests.sizeOf(request.digest) : Effect.succeedNone,
        yield* Effect.scope
      )
    )

    /** Asks a peer for a part or for the whole; one that has it in another size cannot have the content. */
    const askFor = Effect.fnUntraced(function*(attempt: PeerRace.Attempt, part: string | undefined, size?: number) {
      const { patienceMillis, peer } = attempt
      const sizeKnown = yield* sizing
      const offer = yield* ask(request, peer, { range: part, patienceMillis })
      yield* peers.answered(attempt)
      const expected = size ?? Option.getOrElse(yield* Fiber.join(sizeKnown), () => offer.size)
      if (offer.size === expected) return offer
      const reason = `has ${offer.size} bytes of it and not ${expected}`
      return yield* new PeerRefused({ peer: Offer.nameOf(peer), reason })
    })

    const { measured } = yield* SpeedComparison.make({
      peers,
      speeds,
      ask: (attempt, { end, start }) => askFor(attempt, `bytes=${start}-${end - 1}`)
    })

    /** Asks a peer for what the client wants, or for the whole where that is small: a part cannot be verified. */
    const begin = (attempt: PeerRace.Attempt) =>
      range === undefined
        ? askFor(attempt, undefined)
        : askFor(attempt, range).pipe(
          Effect.filterOrElse(({ size }) => size > verifySize, () => askFor(attempt, undefined)),
          Effect.catchIf(
            // A peer may ignore ranges, as of an empty blob.
            (error) => error._tag === "PeerRefused" && (error.status === 416 || error.status === 200),
            (error) => Effect.filterOrFail(askFor(attempt, undefined), ({ size }) => size <= verifySize, () => error)
          )
        )

    const readManifest = Effect.fnUntraced(function*(wanted: Offer.ContentRequest, attempt: PeerRace.Attempt) {
      const { entry, patienceMillis, peer } = attempt
      const offer = yield* ask(wanted, peer, { patienceMillis })
      yield* peers.answered(attempt)
      return yield* measured(attempt, () => entry.bytes, (compare) => held.manifest(offer, { entry, compare })).pipe(
        Effect.tapErrorTag("ContentCorrupted", (error) => exclude(error, [peer]))
      )
    })

    /** A manifest, from the first peer that gave all of it. */
    const bringManifest = (manifest: Extract<Offer.ContentRequest, { readonly _tag: "Manifest" }>) =>
      Effect.gen(function*() {
        const won = yield* peers.race(0, (attempt) => readManifest(manifest, attempt))
        served(won)
        const { bytes, ...found } = manifest.reference._tag === "Digest" ?
          won.value :
          yield* TagElection.elect(won.value, {
            content,
            request: manifest,
            peers,
            patience: hedgeDelay,
            inquire: ({ peer }) => ask(manifest, peer, { head: true }),
            read: readManifest,
            served
          })
        return { ...found, size: bytes.length, range: Option.none(), body: verified(bytes) }
      })

    const bringBlob = (): Effect.Effect<MirroredContent, MirrorError | ByteRange.RangeNotSatisfiable> =>
      Effect.gen(function*() {
        const won = yield* peers.race(0, begin)
        const { entry, peer, value: offer } = won
        const { digest, mediaType, size } = offer
        if (request.method === "HEAD") {
          served(won)
          return { peer, digest, mediaType, size, range: Option.none(), body: verified(new Uint8Array()) }
        }
        if (Offer.isWhole(offer) && size <= verifySize) {
          const result = yield* measured(won, () => entry.bytes, (compare) => held.blob(offer, { entry, compare }))
            .pipe(
              Scope.provide(won.scope),
              Effect.result
            )
          if (Result.isFailure(result)) {
            if (result.failure._tag === "ContentCorrupted") yield* exclude(result.failure, [peer])
            yield* peers.leave(won, result.failure)
            return yield* bringBlob()
          }
          if (Option.isSome(result.success)) {
            served(won)
            const { bytes, ...found } = result.success.value
            const part = yield* Effect.fromResult(ByteRange.parse(range, bytes.length))
            const { end, start } = Option.getOrElse(part, () => ({ start: 0, end: bytes.length }))
            return { ...found, size: bytes.length, range: part, body: verified(bytes.subarray(start, end)) }
          }
        }
        if (yield* isSuspected(won)) return yield* bringBlob()
        const part = Offer.isWhole(offer) ? Option.none() : Option.some(offer.range)
        const relay = (to: Recipient) =>
          Effect.scoped(Effect.gen(function*() {
            const hashes = options.verify === "stream" && Offer.isWhole(offer)
            const body = hashes ? LargeBody.hashed({ digest, size }, to) : LargeBody.passing(offer.range.start, to)
            yield* stream(won, [peer], body).pipe(
              PullSpans.verification(offer.range.end - offer.range.start, hashes),
              Effect.tapError(() => countFailure)
            )
            // What the client had before, or this part of it, may be wrong without anybody having seen it.
            if (!Offer.isWhole(offer)) yield* ingests.suspect(digest)
          }))
        return { peer, digest, mediaType, size, range: part, body: { _tag: "Stream" as const, relay } }
      })

    /** Relays an offer; where it breaks, another peer goes on at the byte reached. */
    const stream = (
      won: Winner,
      /** Those whose bytes were passed on. */
      senders: ReadonlyArray<Peer>,
      body: LargeBody.LargeBody
    ): Effect.Effect<void, StreamError> =>
      Effect.gen(function*() {
        const { entry, peer, value: offer } = won
        const start = body.offset()
        entry.outcome = "the client went away"
        record.source = peer.id
        record.receivingPort = offer.response.localPort
        const lie = Effect.andThen(
          body.wrong,
          Effect.failSync(() => new ContentCorrupted({ peer: Offer.nameOf(peer), content: offer.digest }))
        )
        const count = () => entry.bytes = body.offset() - start
        const relay = measured(won, count, (compare) => body.take(offer.response, compare), () => ({
          start: body.offset(),
          end: offer.range.end
        }))
        const outcome = yield* Effect.result(Effect.raceFirst(relay, lie))
        if (Result.isSuccess(outcome)) return served(won)
        const error = outcome.failure
        if (error._tag === "BodyInterrupted") return yield* error
        if (error._tag === "ContentCorrupted") yield* exclude(error, senders)
        yield* peers.leave(won, error)
        if (error._tag === "ContentCorrupted") {
          yield* ingests.suspect(offer.digest)
          yield* warnings.give(senders, offer.digest)
          return yield* error
        }
        if (entry.bytes >= worthwhileBytes) yield* peers.renew
        const reached = body.offset()
        yield* Effect.logInfo(`${error.message}: going on at byte ${reached} of ${content} with another peer`)
        const rest = offer.range.end === offer.size ? `bytes=${reached}-` : `bytes=${reached}-${offer.range.end - 1}`
        const goOn: Effect.Effect<void, StreamError> = Effect.gen(function*() {
          const next = yield* peers.race(reached, (attempt) => askFor(attempt, rest, offer.size))
          yield* (yield* isSuspected(next)) ? goOn : stream(next, [...senders, next.peer], body)
        })
        yield* goOn
      })

    const bring = request._tag === "Manifest" ? bringManifest(request) : bringBlob()
    const bounded = request._tag === "Manifest" || request.method === "HEAD"
      ? Effect.timeoutOrElse(bring, {
        duration: answerTimeout,
        orElse: () => {
          const waitedMillis = Duration.toMillis(answerTimeout)
          const late = Effect.failSync(() => new AnswerTimeout({ content, waitedMillis, tried: record.failures }))
          return Effect.andThen(peers.leaveAll(waitedMillis), late)
        }
      })
      : bring
    return yield* Effect.tapError(bounded, () => countFailure)
  })

  return { fetch } satisfies Mirror
})

const verified = (bytes: Uint8Array): MirroredBody => ({ _tag: "Verified", bytes })
