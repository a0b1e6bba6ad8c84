/**
 * Whether a peer gives one request much less than others would (`PeerSpeeds`). It is left for another at the byte reached,
 * as long as there is another, and not for ever: what differs may be the network.
 */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import type * as ByteRange from "@spegel-ts/oci/ByteRange"
import type { ByteSink, Comparison } from "@spegel-ts/transfer/PeerTransport"
import { Clock, Duration, Effect, type Scope } from "effect"
import type { PeerError } from "../../MirrorError.ts"
import type { Offer } from "./PeerAnswer.ts"
import type { Attempt, PeerRace } from "./PeerRace.ts"
import { minSampleBytes, type PeerSpeeds } from "./PeerSpeeds.ts"

/** How often a body may go to another peer because that one may be faster. */
const maxMoves = 2
/** Nobody who gives more bytes per second is worth a comparison. */
const sampleBelow = 16 * 1024 * 1024
const sampleTime = Duration.seconds(2)

export interface SpeedComparison {
  /**
   * Reads from a peer, and notes what it gives; `bytes` is how much that is so far. Where nothing is known of others,
   * another gives a part of `rest` for comparison, which is thrown away.
   */
  readonly measured: <A, E, R>(
    attempt: Attempt,
    bytes: () => number,
    read: (compare: Comparison) => Effect.Effect<A, E, R>,
    rest?: () => ByteRange.ByteRange
  ) => Effect.Effect<A, E, R>
}

/** Takes all and keeps nothing. */
const nowhere = (): ByteSink => {
  const buffer = Buffer.allocUnsafeSlow(64 * 1024)
  return { space: () => buffer, write: () => true }
}

/** For one request. What it starts ends with the scope. */
export const make = Effect.fnUntraced(function*(options: {
  readonly peers: PeerRace
  readonly speeds: PeerSpeeds
  /** Asks a peer for a part. */
  readonly ask: (attempt: Attempt, part: ByteRange.ByteRange) => Effect.Effect<Offer, PeerError, Scope.Scope>
}) {
  const { ask, peers, speeds } = options
  const clock = yield* Clock.Clock
  const scope = yield* Effect.scope
  const run = Effect.runForkWith(yield* Effect.context())
  let moves = 0
  let sampled = false

  /** Runs beside the body that may be slow. */
  const sample = ({ start }: ByteRange.ByteRange) =>
    peers.sample(sampleTime, (attempt) =>
      Effect.gen(function*() {
        const offer = yield* ask(attempt, { start, end: start + minSampleBytes })
        const begun = yield* MonotonicTime.millis
        yield* offer.response.relay(nowhere())
        const now = yield* MonotonicTime.millis
        speeds.gave(attempt.peer, minSampleBytes, now - begun, now)
      }))

  const comparison: SpeedComparison = {
    measured: ({ peer }, bytes, read, rest) =>
      Effect.suspend(() => {
        const begun = MonotonicTime.millisUnsafe(clock)
        const note = () => {
          const now = MonotonicTime.millisUnsafe(clock)
          speeds.gave(peer, bytes(), now - begun, now)
          return now
        }
        const compare: Comparison = (bytesPerSecond) => {
          const now = note()
          if (moves >= maxMoves || !peers.hasAnother(now)) return undefined
          const part = rest?.()
          if (
            !sampled && bytesPerSecond < sampleBelow && !speeds.knowsOthers(peer, now) &&
            part !== undefined && part.end - part.start > minSampleBytes
          ) {
            sampled = true
            run(Effect.forkIn(sample(part), scope))
          }
          const others = speeds.typicalOfOthers(peer, bytesPerSecond, now)
          if (others !== undefined) moves++
          return others
        }
        return Effect.ensuring(read(compare), Effect.sync(note))
      })
  }
  return comparison
})
