/**
 * Watches a peer that sends a download which it has in progress. Such a peer may be silent for as long as its own source is; in that
 * time it has to show that it is there, and that the download has not ended. Meant to race the reading of the body.
 */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import { PeerDisconnected, PeerStalled } from "@spegel-ts/transfer/PeerError"
import { Duration, Effect, Result } from "effect"
import { nameOf, type PeerAnswer } from "../mirror/PeerAnswer.ts"
import type { Pull } from "../pull/Pull.ts"
import * as FollowPolicy from "./FollowPolicy.ts"
import * as PeerProbe from "./PeerProbe.ts"

export type FollowError = PeerDisconnected | PeerStalled

const lookEvery = "250 millis"
/** A peer is asked whether it is there once it has been silent for this long. */
const silenceMillis = 500

/** Never succeeds. `bytes` is how many of the answer's body have come so far. */
export const watch = Effect.fnUntraced(function*(
  pull: Pull,
  answer: PeerAnswer,
  bytes: () => number
): Effect.fn.Return<never, FollowError> {
  const peer = nameOf(answer.peer)
  const longest = Duration.toMillis(pull.mirror.options.inProgressWait)
  let last = bytes()
  let grewAt = yield* MonotonicTime.millis
  let shownAt = grewAt
  while (true) {
    yield* Effect.sleep(lookEvery)
    const asked = yield* MonotonicTime.millis
    if (bytes() !== last) {
      last = bytes()
      grewAt = shownAt = asked
    }
    if (asked - shownAt < silenceMillis) continue
    const probed = yield* Effect.result(PeerProbe.ask(pull, answer.peer, answer.range.start + last))
    const now = yield* MonotonicTime.millis
    if (Result.isSuccess(probed)) {
      const ended = endOf(probed.success)
      if (ended !== undefined) return yield* new PeerDisconnected({ peer, reason: ended })
      shownAt = now
      if (hasMore(probed.success, answer.range.start + last)) grewAt = now
    }
    const waitedMillis = Math.max(now - grewAt - longest, now - shownAt - FollowPolicy.goneMillis)
    if (waitedMillis >= 0) return yield* new PeerStalled({ peer, waitedMillis: Math.round(now - grewAt) })
  }
})

/** Why no more bytes will come, if that is so. */
const endOf = (probed: PeerProbe.Probed): string | undefined => {
  if (probed._tag === "Gone") return "its own download has ended"
  return probed._tag === "Downloading" && probed.state.origin === "stalled"
    ? "its own download stands still"
    : undefined
}

/** It has more than it could send: the client is the slower one. */
const hasMore = (probed: PeerProbe.Probed, taken: number): boolean =>
  probed._tag === "Held" || (probed._tag === "Downloading" && probed.state.written > taken)
