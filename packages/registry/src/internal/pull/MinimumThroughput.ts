/**
 * Leaves a peer that gives a pull much less than others would (`PeerThroughput`): another goes on at the resume offset. This
 * needs another peer, and happens a few times at most: the network may be the reason.
 */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import type * as ByteRange from "@spegel-ts/oci/ByteRange"
import type { Peer } from "@spegel-ts/router/Peer"
import type { ByteSink, Comparison } from "@spegel-ts/transfer/PeerTransport"
import { Duration, Effect } from "effect"
import { minSampleBytes } from "../mirror/PeerThroughput.ts"
import * as AskOthers from "./AskOthers.ts"
import * as AskPeer from "./AskPeer.ts"
import type { Attempt } from "./Attempt.ts"
import type { Pull } from "./Pull.ts"

/** How often a body may move to another peer because that one may be faster. */
const maxMoves = 2
/** A peer that sends more bytes per second is not compared with others. */
const sampleBelow = 16 * 1024 * 1024
const sampleTime = Duration.seconds(2)

/** How often a pull has acted on slow peers. */
export class Comparisons {
  /** How often the body was moved. */
  moves = 0
  /** Another peer was asked for a sample. */
  sampled = false
}

/**
 * Reads from a peer, at the address that answered, and notes its throughput; `bytes` is how many came so far. If the speed of other
 * peers is unknown, one of them sends a part of `rest` for comparison, which is thrown away.
 */
export const measured = <A, E, R>(
  pull: Pull,
  peer: Peer,
  bytes: () => number,
  read: (compare: Comparison) => Effect.Effect<A, E, R>,
  rest?: () => ByteRange.ByteRange
): Effect.Effect<A, E, R> =>
  Effect.clockWith((clock) => {
    const { comparisons, mirror: { throughput }, peers } = pull
    const begun = MonotonicTime.millisUnsafe(clock)
    const note = () => {
      const now = MonotonicTime.millisUnsafe(clock)
      throughput.observe(peer, bytes(), now - begun, now)
      return now
    }
    const compare: Comparison = (bytesPerSecond) => {
      const now = note()
      if (comparisons.moves >= maxMoves || !peers.hasAnother(now)) return undefined
      const part = rest?.()
      if (part !== undefined && bytesPerSecond < sampleBelow && !throughput.knowsOthers(peer, now)) {
        takeSample(pull, part)
      }
      const others = throughput.typicalOfOthers(peer, bytesPerSecond, now)
      if (others !== undefined) comparisons.moves++
      return others
    }
    return Effect.ensuring(read(compare), Effect.sync(note))
  })

/** Has another peer send the first bytes of `part`, beside the body that may be slow. Once in a pull. */
const takeSample = (pull: Pull, { end, start }: ByteRange.ByteRange): void => {
  if (pull.comparisons.sampled || end - start <= minSampleBytes) return
  pull.comparisons.sampled = true
  pull.fork(AskOthers.one(pull.peers, sampleTime, (attempt) => sample(pull, attempt, start)))
}

const sample = Effect.fnUntraced(function*(pull: Pull, attempt: Attempt, start: number) {
  const answer = yield* AskPeer.forBlob(pull, attempt, `bytes=${start}-${start + minSampleBytes - 1}`)
  const begun = yield* MonotonicTime.millis
  yield* answer.response.relay(nowhere())
  const now = yield* MonotonicTime.millis
  pull.mirror.throughput.observe(answer.peer, minSampleBytes, now - begun, now)
})

/** Takes all bytes and keeps none. */
const nowhere = (): ByteSink => {
  const buffer = Buffer.allocUnsafeSlow(64 * 1024)
  return { space: () => buffer, write: () => true }
}
