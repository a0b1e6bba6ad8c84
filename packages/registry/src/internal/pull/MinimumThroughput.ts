/**
 * Leaves a peer that gives a pull much less than others would (`PeerThroughput`): another goes on at the resume offset. This
 * needs another peer, and happens a few times at most: the network may be the reason.
 */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import type * as ByteRange from "@spegel-ts/oci/ByteRange"
import type { ByteSink, Comparison, Judgement } from "@spegel-ts/transfer/PeerTransport"
import { Duration, Effect } from "effect"
import * as FollowWatch from "../follow/FollowWatch.ts"
import type { PeerAnswer } from "../mirror/PeerAnswer.ts"
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
 * peers is unknown, one of them sends a part of `rest` for comparison, which is thrown away. A peer that sends a download in progress
 * is as fast as that, and is not compared: it has to show that it is there (`FollowWatch`).
 */
export const measured = <A, E, R>(
  pull: Pull,
  answer: PeerAnswer,
  bytes: () => number,
  read: (judgement: Judgement) => Effect.Effect<A, E, R>,
  rest?: () => ByteRange.ByteRange
): Effect.Effect<A, E | FollowWatch.FollowError, R> =>
  Effect.clockWith((clock) => {
    const { comparisons, mirror: { memory, throughput }, content, peers } = pull
    const { download, peer } = answer
    const begun = MonotonicTime.millisUnsafe(clock)
    memory.took(peer, content, download !== undefined)
    const note = () => {
      const now = MonotonicTime.millisUnsafe(clock)
      const taken = bytes()
      if (download === undefined) throughput.observe(peer, taken, now - begun, now)
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
    return Effect.ensuring(
      download === undefined ? read({ compare }) : FollowWatch.watched(pull, answer, bytes, read),
      Effect.sync(note)
    )
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
