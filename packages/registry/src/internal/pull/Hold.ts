/** Holds manifests and small blobs: reads them whole and verifies them before any byte of them is answered. */
import type * as ByteRange from "@spegel-ts/oci/ByteRange"
import { Effect, Option, Scope } from "effect"
import type { ContentRequest } from "../../ContentId.ts"
import type { MirroredContent } from "../../MirroredContent.ts"
import type { PeerError } from "../../MirrorError.ts"
import type { BufferedBody, Reading } from "../mirror/BufferedBodies.ts"
import type { PeerAnswer } from "../mirror/PeerAnswer.ts"
import * as AskPeer from "./AskPeer.ts"
import * as Attempt from "./Attempt.ts"
import * as Blame from "./Blame.ts"
import * as MinimumThroughput from "./MinimumThroughput.ts"
import type { Pull } from "./Pull.ts"

/** Reads a body into memory; a peer whose bytes are wrong is not asked again at the address that sent them. */
const verified = <A, R>(
  pull: Pull,
  { entry }: Attempt.Attempt,
  answer: PeerAnswer,
  read: (reading: Reading) => Effect.Effect<A, PeerError, R>
): Effect.Effect<A, PeerError, R> => {
  const { content, mirror, request } = pull
  const { peer } = answer
  return MinimumThroughput.measured(pull, answer, () => entry.bytes, (judgement) => read({ entry, judgement })).pipe(
    Effect.tapErrorTag("ContentCorrupted", () => Blame.exclude(mirror, request, content, [peer], peer))
  )
}

/** Asks a peer for a manifest, and reads it. */
export const manifest = Effect.fnUntraced(function*(
  pull: Pull,
  request: ContentRequest,
  attempt: Attempt.Attempt
): Effect.fn.Return<BufferedBody, PeerError, Scope.Scope> {
  const answer = yield* AskPeer.ask(pull.mirror, request, attempt.peer, {
    patienceMillis: attempt.patienceMillis,
    inProgress: AskPeer.downloadFrom(pull, 0)
  })
  yield* Attempt.answered(pull.peers, attempt)
  return yield* verified(pull, attempt, answer, (reading) => pull.mirror.bodies.manifest(answer, reading))
})

/** Reads a blob that a peer is sending; none if there is no memory for it. */
export const blob = (
  pull: Pull,
  won: Attempt.Won<PeerAnswer>
): Effect.Effect<Option.Option<BufferedBody>, PeerError> =>
  Scope.provide(verified(pull, won, won.value, (reading) => pull.mirror.bodies.blob(won.value, reading)), won.scope)

/** The part that is asked for of a body that is held; none for the whole. */
export const content = (
  { bytes, ...found }: BufferedBody,
  part: Option.Option<ByteRange.ByteRange>
): MirroredContent => {
  const { end, start } = Option.getOrElse(part, () => ({ start: 0, end: bytes.length }))
  return { ...found, size: bytes.length, range: part, body: { _tag: "Verified", bytes: bytes.subarray(start, end) } }
}
