/**
 * Answers peers from a download that this node's containerd has in progress: with the bytes that are there, and with the others as
 * they come. Its own containerd never gets them, for it would wait for itself. Nobody has verified them yet; whoever takes them does.
 */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import {
  type ContentNotFound,
  ContentStore,
  type OpenIngest,
  type StoreUnavailable
} from "@spegel-ts/content/ContentStore"
import type * as Digest from "@spegel-ts/oci/Digest"
import * as MediaType from "@spegel-ts/oci/MediaType"
import { BodyInterrupted } from "@spegel-ts/transfer/BodyInterrupted"
import { Transfer } from "@spegel-ts/transfer/Transfer"
import { Effect, Option, type Scope } from "effect"
import type { BodyMemory } from "../memory/BodyMemory.ts"
import * as RegistryMetrics from "../observe/RegistryMetrics.ts"
import type * as DownloadState from "../share/DownloadState.ts"
import type { Followers } from "../share/Followers.ts"
import * as Growth from "../share/Growth.ts"
import type { OwnDownload, OwnDownloads } from "../share/OwnDownloads.ts"
import * as Answer from "./Answer.ts"
import { finish, sendGrowing } from "./BlobBody.ts"
import * as ContentExchange from "./ContentExchange.ts"
import { Refusal, Refused } from "./Refusal.ts"
import type { UploadAdmission } from "./UploadAdmission.ts"

export interface DownloadAnswerOptions {
  readonly downloads: OwnDownloads
  readonly followers: Followers
  readonly memory: BodyMemory
  readonly uploads: UploadAdmission
}

type DownloadError = BodyInterrupted | ContentNotFound | Refused | StoreUnavailable

const lookEvery = "100 millis"

export const make = Effect.fnUntraced(function*({ downloads, followers, memory, uploads }: DownloadAnswerOptions) {
  const store = yield* ContentStore
  const transfer = yield* Transfer

  /** Fails once no more bytes of a download can be expected; never succeeds. */
  const untilGivenUp = Effect.fnUntraced(function*(digest: Digest.Digest, file: OpenIngest, end: number) {
    while (true) {
      yield* Effect.sleep(lookEvery)
      const state = yield* Effect.orElseSucceed(file.state, () => undefined)
      if (state?._tag === "Committed") return yield* Effect.never
      if (state?._tag === "Deleted" && state.written < end) {
        return yield* new BodyInterrupted({ reason: "this node's containerd has given the download up" })
      }
      if (state?._tag === "InProgress" && state.written < end && (yield* downloads.isStalled(digest))) {
        return yield* new BodyInterrupted({ reason: "this node's own download stands still" })
      }
    }
  })

  const send = Effect.fnUntraced(function*(
    exchange: ContentExchange.ContentExchange,
    digest: Digest.Digest,
    { ingest, state: found }: OwnDownload,
    asked: DownloadState.Asked
  ): Effect.fn.Return<Answer.Answer, DownloadError, Scope.Scope> {
    const { request, response } = exchange
    const now = yield* MonotonicTime.millis
    const state: DownloadState.DownloadState = { ...found, instead: followers.instead(digest, asked, now) }
    // The type of a manifest is known once it is complete.
    if (request._tag === "Manifest") return yield* new Refused({ refusal: Refusal.StillDownloading({ digest, state }) })
    const range = yield* ContentExchange.rangeOf(exchange, digest, ingest.size)
    const head = { digest, mediaType: MediaType.octetStream, size: ingest.size, range, download: state }
    if (request.method === "HEAD") {
      const answer = ContentExchange.writeHead(exchange, head, Answer.local, now)
      return yield* Effect.as(finish(response), answer)
    }
    const part = ContentExchange.partOf(head)
    // Who takes bytes from here is always behind: so no two nodes ever wait for each other.
    if (!Growth.isSent(state, part.start, ingest.size)) {
      return yield* new Refused({ refusal: Refusal.StillDownloading({ digest, state }) })
    }
    // At once: who asks meanwhile has to be counted with this one.
    yield* followers.admit(digest, asked)
    const file = yield* store.openIngest(ingest)
    yield* uploads.admit(response)
    yield* ContentExchange.reserve(exchange, memory, "file")
    const answer = ContentExchange.writeHead(exchange, head, Answer.local, yield* MonotonicTime.millis)
    const to = yield* ContentExchange.recipient(exchange, memory)
    yield* memory.sending(to.client.socket, to.progress)
    yield* RegistryMetrics.downloadShared(() => to.progress.moved)
    yield* Effect.raceFirst(sendGrowing(transfer, file.handle, part, to), untilGivenUp(digest, file, part.end))
    yield* finish(response)
    return answer
  }, Effect.scoped)

  /** None if nothing of `digest` is being downloaded. */
  return Effect.fnUntraced(function*(
    exchange: ContentExchange.ContentExchange,
    digest: Digest.Digest,
    asked: DownloadState.Asked
  ) {
    const download = yield* downloads.find(digest)
    return Option.isNone(download)
      ? Option.none<Answer.Answer>()
      : yield* Effect.catchTag(
        Effect.asSome(send(exchange, digest, download.value, asked)),
        "ContentNotFound",
        () => Effect.succeedNone
      )
  })
})
