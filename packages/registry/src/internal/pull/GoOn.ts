/** Goes on with another peer at the resume offset, after one failed in the middle of a large body. */
import type { BodyInterrupted } from "@spegel-ts/transfer/BodyInterrupted"
import { Effect } from "effect"
import * as ContentId from "../../ContentId.ts"
import type { StreamError } from "../../MirroredContent.ts"
import type { PeerError } from "../../MirrorError.ts"
import { renewAfterBytes } from "../../ResolvePolicy.ts"
import * as Follow from "../follow/Follow.ts"
import type { PeerAnswer } from "../mirror/PeerAnswer.ts"
import * as AskPeer from "./AskPeer.ts"
import * as Attempt from "./Attempt.ts"
import * as Blame from "./Blame.ts"
import type { Relaying } from "./Relay.ts"

/** The peer that goes on. Fails if there is none, if the client has gone, or if the bytes that the client has are wrong. */
export const next = Effect.fnUntraced(function*(
  { body, download, pull, senders }: Relaying,
  failed: Attempt.Won<PeerAnswer>,
  error: PeerError | BodyInterrupted
): Effect.fn.Return<Attempt.Won<PeerAnswer>, StreamError> {
  if (error._tag === "BodyInterrupted") return yield* error
  const { content, mirror, peers, request } = pull
  if (error._tag === "ContentCorrupted") {
    // When several peers sent parts, we cannot tell which one was wrong.
    yield* Blame.exclude(mirror, request, content, senders, senders.length === 1 ? failed.value.peer : undefined)
    yield* Attempt.leave(peers, failed, error)
    yield* download.discard
    return yield* error
  }
  yield* Attempt.leave(peers, failed, error)
  if (failed.entry.bytes >= renewAfterBytes) peers.renew()
  const resumeOffset = body.offset()
  const name = ContentId.print(content)
  yield* Effect.logInfo(`${error.message}: going on at byte ${resumeOffset} of ${name} with another peer`)
  const { range: { end }, size } = failed.value
  const rest = `bytes=${resumeOffset}-${end === size ? "" : end - 1}`
  const use = (attempt: Attempt.Attempt) => AskPeer.forBlob(pull, attempt, rest, size)
  return yield* Follow.race(pull, resumeOffset, use, failed.peer)
})
