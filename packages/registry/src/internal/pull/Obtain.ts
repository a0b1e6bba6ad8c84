/** A pull from its beginning to the point where its answer can begin: the steps in their order. */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import * as ByteRange from "@spegel-ts/oci/ByteRange"
import type { Peer } from "@spegel-ts/router/Peer"
import { Duration, Effect, Option, Result, type Scope } from "effect"
import * as ContentId from "../../ContentId.ts"
import type { MirroredContent } from "../../MirroredContent.ts"
import { AnswerTimeout, type MirrorError } from "../../MirrorError.ts"
import * as Follow from "../follow/Follow.ts"
import { isWhole, type PeerAnswer } from "../mirror/PeerAnswer.ts"
import * as AskPeer from "./AskPeer.ts"
import * as Attempt from "./Attempt.ts"
import * as ElectTag from "./ElectTag.ts"
import * as Hold from "./Hold.ts"
import type { MirrorParts } from "./MirrorParts.ts"
import * as PeerRace from "./PeerRace.ts"
import * as Pull from "./Pull.ts"
import * as Relay from "./Relay.ts"

/** The content that a client asks for, ready to be sent. */
export const content = Effect.fnUntraced(function*(
  mirror: MirrorParts,
  asked: Pull.Asked
): Effect.fn.Return<MirroredContent, MirrorError | ByteRange.RangeNotSatisfiable, Scope.Scope> {
  const pull = yield* Pull.begin(mirror, asked)
  const { request } = asked
  const obtained = request._tag === "Manifest"
    ? inTime(pull, manifest(pull, request))
    : request.method === "HEAD"
    ? inTime(pull, blob(pull))
    : blob(pull)
  return yield* Effect.tapError(obtained, () => Pull.countFailure(pull))
})

/** Bounds the time of an answer that nobody may wait for long, whatever peers do. */
const inTime = <A, E>(pull: Pull.Pull, obtained: Effect.Effect<A, E>): Effect.Effect<A, E | AnswerTimeout> => {
  const { content, mirror: { options: { answerTimeout } }, peers, record } = pull
  const waitedMillis = Duration.toMillis(answerTimeout)
  const late = Effect.failSync(() =>
    new AnswerTimeout({ content: ContentId.print(content), waitedMillis, tried: record.failures })
  )
  return Effect.timeoutOrElse(obtained, {
    duration: answerTimeout,
    orElse: () => Effect.andThen(Attempt.leaveAll(peers, waitedMillis), late)
  })
}

/** A manifest, from the first peer that gave all of it. */
const manifest = Effect.fnUntraced(function*(
  pull: Pull.Pull,
  request: Extract<ContentId.ContentRequest, { readonly _tag: "Manifest" }>
) {
  const won = yield* Follow.race(pull, 0, (attempt) => Hold.manifest(pull, request, attempt))
  Pull.served(pull, won)
  const found = request.reference._tag === "Digest" ? won.value : yield* ElectTag.elect(pull, request, won)
  return Hold.content(found, Option.none())
})

/** A blob: held if it is small, else to be relayed. */
const blob = Effect.fnUntraced(function*(
  pull: Pull.Pull
): Effect.fn.Return<MirroredContent, MirrorError | ByteRange.RangeNotSatisfiable> {
  const start = Option.getOrElse(ByteRange.firstByte(pull.range), () => 0)
  const use = (attempt: Attempt.Attempt) => AskPeer.forWanted(pull, attempt)
  const patientUntil = (yield* MonotonicTime.millis) + Duration.toMillis(pull.mirror.options.inProgressWait)
  let failed: Peer | undefined
  while (true) {
    // A peer that answers each time, and then fails in its body, must not begin one wait after another.
    const isPatient = (yield* MonotonicTime.millis) < patientUntil
    const won = yield* (isPatient ? Follow.race(pull, start, use, failed) : PeerRace.race(pull.peers, start, use))
    if (pull.request.method === "HEAD") return headOnly(pull, won)
    if (!isWhole(won.value) || won.value.size > pull.mirror.options.verifySize) {
      return Relay.content(pull, won)
    }
    const held = yield* Effect.result(Hold.blob(pull, won))
    if (Result.isFailure(held)) {
      yield* Attempt.leave(pull.peers, won, held.failure)
      failed = won.peer
      continue
    }
    if (Option.isNone(held.success)) return Relay.content(pull, won)
    const body = held.success.value
    Pull.served(pull, won)
    return Hold.content(body, yield* Effect.fromResult(ByteRange.parse(pull.range, body.bytes.length)))
  }
})

const headOnly = (pull: Pull.Pull, won: Attempt.Won<PeerAnswer>): MirroredContent => {
  Pull.served(pull, won)
  const { peer, value: { digest, mediaType, size } } = won
  return { peer, digest, mediaType, size, range: Option.none(), body: { _tag: "Verified", bytes: new Uint8Array() } }
}
