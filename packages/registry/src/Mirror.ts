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
import type { BodyInterrupted } from "@spegel-ts/transfer/BodyInterrupted"
import * as FileLease from "@spegel-ts/transfer/FileLease"
import { Duration, Effect, Fiber, Option, Result, Schedule, Scope } from "effect"
import * as HeldBodies from "./internal/mirror/BufferedBodies.ts"
import { Circuits } from "./internal/mirror/CircuitBreaker.ts"
import * as LargeBody from "./internal/mirror/LargeBody.ts"
import * as SpeedComparison from "./internal/mirror/MinimumThroughput.ts"
import * as Offer from "./internal/mirror/PeerAnswer.ts"
import { PeerMemory } from "./internal/mirror/PeerMemory.ts"
import * as PeerRace from "./internal/mirror/PeerRace.ts"
import { PeerSpeeds } from "./internal/mirror/PeerSpeeds.ts"
import * as TagElection from "./internal/mirror/TagElection.ts"
import * as PeerSpans from "./internal/observe/PeerSpans.ts"
import type { PullRecord } from "./internal/observe/PullRecord.ts"
import * as RegistryMetrics from "./internal/observe/RegistryMetrics.ts"
import type { Recipient } from "./internal/serve/BlobBody.ts"
import * as CommitWatch from "./internal/verify/CommitWatch.ts"
import { AnswerTimeout, ContentCorrupted, type MirrorError, type PeerError } from "./MirrorError.ts"

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
  /**
   * How bodies are verified that are too large to be held: `commit` passes them on and sees whether containerd commits
   * them; `stream` hashes them on their way and holds their end back.
   */
  readonly verify: "commit" | "stream"
  /** Bodies to this size in bytes are verified before any of them is answered. */
  readonly verifySize: number
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
    /** Fails when no peer is left that can go on; where it is verified as it streams, before its end if it is wrong. */
    readonly relay: (to: Recipient) => Effect.Effect<void, StreamError>
  }

export interface Mirror {
  /**
   * The content asked for by a client, which `userAgent` names, from peers; what is done goes to `record`. All that it
   * opens closes with the scope.
   */
  readonly fetch: (
    request: Offer.ContentRequest,
    name: Reference.Reference,
    record: PullRecord,
    userAgent: string
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
  const commits = yield* CommitWatch.make(FileLease.writerOf)
  const held: HeldBodies.HeldBodies = yield* HeldBodies.make(options.verifyMemory)
  const { ask, complain } = yield* Offer.make(options)
  const whole = yield* Effect.scope
  const { answerTimeout, hedgeDelay, resolveRetries, resolveTimeout, verify, verifySize } = options
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

  /**
   * Bytes were wrong: nobody who sent any of them is asked for this content again. Each is told, and looks at what it holds;
   * only who sent all of them, `liar`, is called one.
   */
  const exclude = Effect.fnUntraced(function*(
    request: Offer.ContentRequest,
    content: string,
    senders: ReadonlyArray<Peer>,
    liar: Peer | undefined
  ) {
    yield* Effect.forEach(senders, (peer) => Effect.forkIn(complain(request, peer), whole), { discard: true })
    memory.corrupted(senders, content, yield* MonotonicTime.millis, liar)
    yield* RegistryMetrics.corrupted
    yield* Effect.logWarning(
      liar === undefined
        ? `wrong bytes came for ${content}, some of them from ${
          senders.map(Offer.nameOf).join(", ")
        }: not asked for it any more`
        : `${Offer.nameOf(liar)}: sent wrong bytes for ${content}: not asked for it any more`
    ).pipe(Effect.annotateLogs({ peers: senders.map(({ id }) => id).join(", "), content }))
  })

  /** The download that a client's request is for. What becomes of it tells of the peers that sent it. */
  const downloadFor = (request: Offer.ContentRequest, range: string | undefined, userAgent: string) => {
    if (request._tag === "Manifest") return Effect.succeed(CommitWatch.noDownload)
    const start = range === undefined ? Option.some(0) : ByteRange.openStart(range)
    const { digest } = request
    return commits.begin({
      digest,
      start: request.method === "GET" ? start : Option.none(),
      userAgent,
      told: (verdict) => {
        switch (verdict._tag) {
          case "Right":
            return Effect.sync(() => memory.believed(verdict.senders, digest))
          case "Doubted":
            return Effect.map(MonotonicTime.millis, (now) => memory.doubted(verdict.senders, digest, now))
          case "Wrong":
            return exclude(request, digest, verdict.senders, Option.getOrUndefined(verdict.liar))
        }
      }
    })
  }

  const fetch = Effect.fnUntraced(function*(
    request: Offer.ContentRequest,
    name: Reference.Reference,
    record: PullRecord,
    userAgent: string
  ) {
    const content = contentOf(request, name)
    const circuit = circuits.of(name.registry)
    const range = Offer.rangeOf(request)
    const scope = yield* Effect.scope
    // Looked for beside the first question to a peer: where there is nobody to ask, nothing has to be known.
    const download = yield* Effect.cached(
      downloadFor(request, range, userAgent).pipe(Scope.provide(scope), Effect.forkIn(scope))
    )
    if (request.method === "GET" && request._tag === "Blob" && range === undefined) yield* commits.doubt(request.digest)

    const peers = yield* PeerRace.make({
      content,
      lookup: (count) => PeerSpans.peerLookup(router.lookup(ContentKey.make(content), { count })),
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
    const countFailure = Effect.flatMap(MonotonicTime.millis, (now) =>
      peers.lostTime() && circuit.failed(now)
        ? Effect.andThen(
          RegistryMetrics.circuitOpened(name.registry),
          Effect.logWarning(`peers keep requests for ${name.registry} waiting: they get little time for a while`)
        )
        : Effect.void)

    const served = ({ entry, peer }: PeerRace.Attempt) => {
      entry.outcome = "served"
      memory.served(peer, content)
      circuit.succeeded()
    }

    /** Asks a peer for a part or for the whole; one that has it in another size cannot have the content. */
    const askFor = (attempt: PeerRace.Attempt, part: string | undefined, size?: number) => {
      const { patienceMillis, peer } = attempt
      const asking = Effect.tap(ask(request, peer, { range: part, patienceMillis }), () => peers.answered(attempt))
      const sizeOf = Effect.map(Effect.flatMap(download, Fiber.join), (found) => Option.getOrUndefined(found.size))
      const expected = size === undefined ? sizeOf : Effect.succeed(size)
      const check = (offer: Offer.Offer) => Effect.flatMap(expected, (size) => Offer.sized(offer, size))
      return Effect.andThen(download, Effect.flatMap(asking, check))
    }

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

    /** Reads a body into memory; a peer whose bytes are wrong is not asked again. */
    const readWhole = <A, R>(
      attempt: PeerRace.Attempt,
      read: (reading: HeldBodies.Reading) => Effect.Effect<A, PeerError, R>
    ) =>
      measured(attempt, () => attempt.entry.bytes, (compare) => read({ entry: attempt.entry, compare })).pipe(
        Effect.tapErrorTag("ContentCorrupted", () => exclude(request, content, [attempt.peer], attempt.peer))
      )

    const readManifest = (wanted: Offer.ContentRequest, attempt: PeerRace.Attempt) =>
      ask(wanted, attempt.peer, { patienceMillis: attempt.patienceMillis }).pipe(
        Effect.tap(() => peers.answered(attempt)),
        Effect.flatMap((offer) => readWhole(attempt, (reading) => held.manifest(offer, reading)))
      )

    /** A manifest, from the first peer that gave all of it. */
    const bringManifest = (manifest: Extract<Offer.ContentRequest, { readonly _tag: "Manifest" }>) =>
      peers.race(0, (attempt) => readManifest(manifest, attempt)).pipe(
        Effect.tap((won) => Effect.sync(() => served(won))),
        Effect.flatMap((won) =>
          manifest.reference._tag === "Digest" ? Effect.succeed(won.value) : TagElection.elect(won.value, {
            content,
            request: manifest,
            peers,
            patience: hedgeDelay,
            inquire: ({ peer }) => ask(manifest, peer, { head: true }),
            read: readManifest,
            served
          })
        ),
        Effect.map((found) => inHand(found, Option.none()))
      )

    const bringBlob = (): Effect.Effect<MirroredContent, MirrorError | ByteRange.RangeNotSatisfiable> =>
      Effect.flatMap(peers.race(0, begin), (won) => {
        const { peer, value: offer } = won
        const { digest, mediaType, size } = offer
        if (request.method === "HEAD") {
          served(won)
          const body = verified(new Uint8Array())
          return Effect.succeed({ peer, digest, mediaType, size, range: Option.none(), body })
        }
        if (!Offer.isWhole(offer) || size > verifySize) return Effect.succeed(streamed(won))
        // Read whole before any of it is answered, unless there is no memory for that.
        return Effect.matchEffect(Scope.provide(readWhole(won, (reading) => held.blob(offer, reading)), won.scope), {
          onFailure: (error) => Effect.flatMap(peers.leave(won, error), bringBlob),
          onSuccess: Option.match({
            onNone: () => Effect.succeed(streamed(won)),
            onSome: (found) => {
              served(won)
              const part = Effect.fromResult(ByteRange.parse(range, found.bytes.length))
              return Effect.map(part, (part) => inHand(found, part))
            }
          })
        })
      })

    /** A blob whose bytes are passed on as they come. */
    const streamed = (won: Winner): MirroredContent => {
      const { peer, value: offer } = won
      const { digest, mediaType, size } = offer
      const part = Offer.isWhole(offer) ? Option.none() : Option.some(offer.range)
      const relay = (to: Recipient) =>
        Effect.scoped(Effect.gen(function*() {
          const hashes = verify === "stream" && Offer.isWhole(offer)
          const body = hashes ? LargeBody.hashed({ digest, size }, to) : LargeBody.passing(offer.range.start, to)
          const watched = yield* Effect.flatMap(download, Fiber.join)
          yield* stream(won, [peer], body, watched).pipe(
            PeerSpans.verification(offer.range.end - offer.range.start, hashes),
            Effect.tapError(() => countFailure)
          )
        }))
      return { peer, digest, mediaType, size, range: part, body: { _tag: "Stream", relay } }
    }

    /** Relays an offer; where it breaks, another peer goes on at the byte reached. */
    const stream = (
      won: Winner,
      /** Those whose bytes were passed on. */
      senders: ReadonlyArray<Peer>,
      body: LargeBody.LargeBody,
      watched: CommitWatch.Download
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
        watched.sent(peer, start, start)
        const relay = measured(won, count, (compare) => body.take(offer.response, compare), () => ({
          start: body.offset(),
          end: offer.range.end
        }))
        const outcome = yield* Effect.raceFirst(relay, lie).pipe(
          Effect.ensuring(Effect.sync(() => watched.sent(peer, start, body.offset()))),
          Effect.result
        )
        if (Result.isSuccess(outcome)) return served(won)
        const error = outcome.failure
        if (error._tag === "BodyInterrupted") return yield* error
        if (error._tag === "ContentCorrupted") {
          // When several peers sent parts, we cannot tell which one was wrong.
          yield* exclude(request, content, senders, senders.length === 1 ? peer : undefined)
          yield* peers.leave(won, error)
          yield* watched.discard
          return yield* error
        }
        yield* peers.leave(won, error)
        if (entry.bytes >= worthwhileBytes) yield* peers.renew
        const reached = body.offset()
        yield* Effect.logInfo(`${error.message}: going on at byte ${reached} of ${content} with another peer`)
        const rest = offer.range.end === offer.size ? `bytes=${reached}-` : `bytes=${reached}-${offer.range.end - 1}`
        const next = yield* peers.race(reached, (attempt) => askFor(attempt, rest, offer.size))
        yield* stream(next, [...senders, next.peer], body, watched)
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

/** Of what is held and verified, the part that is asked for. */
const inHand = ({ bytes, ...found }: HeldBodies.Held, part: Option.Option<ByteRange.ByteRange>): MirroredContent => {
  const { end, start } = Option.getOrElse(part, () => ({ start: 0, end: bytes.length }))
  return { ...found, size: bytes.length, range: part, body: verified(bytes.subarray(start, end)) }
}

const verified = (bytes: Uint8Array): MirroredBody => ({ _tag: "Verified", bytes })
