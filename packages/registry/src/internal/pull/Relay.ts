/** Relays a large blob: passes its bytes on as they come. If a peer fails, another goes on (`GoOn`). */
import type { Peer } from "@spegel-ts/router/Peer"
import type { BodyInterrupted } from "@spegel-ts/transfer/BodyInterrupted"
import { Effect, Fiber, Option, Result } from "effect"
import type { MirroredContent, StreamError } from "../../MirroredContent.ts"
import { ContentCorrupted, type PeerError } from "../../MirrorError.ts"
import { Outcome } from "../../Outcome.ts"
import * as LargeBody from "../mirror/LargeBody.ts"
import { isWhole, nameOf, type PeerAnswer } from "../mirror/PeerAnswer.ts"
import * as PeerSpans from "../observe/PeerSpans.ts"
import type { Recipient } from "../serve/BlobBody.ts"
import type { Download } from "../verify/CommitWatch.ts"
import type { Won } from "./Attempt.ts"
import * as GoOn from "./GoOn.ts"
import * as MinimumThroughput from "./MinimumThroughput.ts"
import * as Pull from "./Pull.ts"

/** One body on its way from peers to the client. */
export interface Relaying {
  readonly pull: Pull.Pull
  readonly body: LargeBody.LargeBody
  /** The download of containerd that the body is for. */
  readonly download: Download
  /** Peers whose bytes were passed on, in order, each at the address that sent them. */
  readonly senders: Array<Peer>
}

/** A blob whose bytes will be passed on as they come. */
export const content = (pull: Pull.Pull, won: Won<PeerAnswer>): MirroredContent => {
  const { peer, value: answer } = won
  const { digest, mediaType, range, size } = answer
  return {
    peer,
    digest,
    mediaType,
    size,
    range: isWhole(answer) ? Option.none() : Option.some(range),
    body: { _tag: "Stream", relay: (to) => relay(pull, won, to) }
  }
}

const relay = Effect.fnUntraced(
  function*(pull: Pull.Pull, won: Won<PeerAnswer>, to: Recipient): Effect.fn.Return<void, StreamError> {
    const { digest, range, size } = won.value
    const hashes = pull.mirror.options.verify === "stream" && isWhole(won.value)
    const body = hashes ? LargeBody.hashed({ digest, size }, to) : LargeBody.passing(range.start, to)
    const download = yield* Effect.flatMap(pull.download, Fiber.join)
    yield* fromOneAfterAnother({ pull, body, download, senders: [] }, won).pipe(
      PeerSpans.verification(range.end - range.start, hashes),
      Effect.tapError(() => Pull.countFailure(pull))
    )
  }
)

const fromOneAfterAnother = Effect.fnUntraced(function*(
  relaying: Relaying,
  first: Won<PeerAnswer>
): Effect.fn.Return<void, StreamError> {
  let won = first
  while (true) {
    relaying.senders.push(won.value.peer)
    const result = yield* Effect.result(fromOne(relaying, won))
    if (Result.isSuccess(result)) return Pull.served(relaying.pull, won)
    won = yield* GoOn.next(relaying, won, result.failure)
  }
})

/** Passes on what one peer gives. */
const fromOne = (
  { body, download, pull }: Relaying,
  won: Won<PeerAnswer>
): Effect.Effect<void, PeerError | BodyInterrupted> =>
  Effect.suspend(() => {
    const { entry, value: { digest, peer, range, response } } = won
    const start = body.offset()
    entry.outcome = Outcome.ClientGone()
    pull.record.source = peer.id
    pull.record.receivingPort = response.localPort
    download.sent(peer, start, start)
    const taking = MinimumThroughput.measured(
      pull,
      won.value,
      () => entry.bytes = body.offset() - start,
      (judgement) => body.take(response, judgement),
      () => ({ start: body.offset(), end: range.end })
    )
    const wrong = Effect.andThen(
      body.wrong,
      Effect.failSync(() => new ContentCorrupted({ peer: nameOf(peer), content: digest }))
    )
    return Effect.ensuring(
      Effect.raceFirst(taking, wrong),
      Effect.sync(() => download.sent(peer, start, body.offset()))
    )
  })
