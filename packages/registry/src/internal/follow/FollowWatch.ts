/** Reads a body that comes from a download which a peer has in progress, and watches that peer (`Silence`). */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import { PeerDisconnected, PeerStalled } from "@spegel-ts/transfer/PeerError"
import type { Judgement } from "@spegel-ts/transfer/PeerTransport"
import { Duration, Effect, Result } from "effect"
import * as ContentId from "../../ContentId.ts"
import { nameOf, type PeerAnswer } from "../mirror/PeerAnswer.ts"
import type { Pull } from "../pull/Pull.ts"
import * as PeerProbe from "./PeerProbe.ts"
import { Silence } from "./Silence.ts"
import * as Turn from "./Turn.ts"

export type FollowError = PeerDisconnected | PeerStalled

/** `bytes` is how many of the answer's body have come so far. */
export const watched = Effect.fnUntraced(function*<A, E, R>(
  pull: Pull,
  answer: PeerAnswer,
  bytes: () => number,
  read: (judgement: Judgement) => Effect.Effect<A, E, R>
): Effect.fn.Return<A, E | FollowError, R> {
  const longestMillis = Duration.toMillis(pull.mirror.options.inProgressWait)
  const silence = new Silence(yield* MonotonicTime.millis, { longestMillis, turn: yield* Turn.draw(pull.mirror) })
  return yield* Effect.raceFirst(
    read({ isExcused: () => !silence.hasMore }),
    watch(pull, answer, bytes, silence)
  )
})

/** Never succeeds. */
const watch = Effect.fnUntraced(function*(
  pull: Pull,
  answer: PeerAnswer,
  bytes: () => number,
  silence: Silence
): Effect.fn.Return<never, FollowError> {
  const peer = nameOf(answer.peer)
  while (true) {
    const taken = bytes()
    const step = silence.next(taken, yield* MonotonicTime.millis)
    if (step._tag === "Leave") return yield* new PeerStalled({ peer, waitedMillis: step.waitedMillis })
    if (step._tag === "Pause") yield* Effect.sleep(step.millis)
    else {
      const end = answer.range.start + taken
      const probed = yield* Effect.result(PeerProbe.ask(pull, answer.peer, end, step.millis))
      if (Result.isFailure(probed)) continue
      const ended = silence.answered(probed.success, end, yield* MonotonicTime.millis)
      if (ended !== undefined) return yield* new PeerDisconnected({ peer, reason: ended })
    }
    pull.mirror.evidence.shown(ContentId.print(pull.content), silence.provedAt)
  }
})
