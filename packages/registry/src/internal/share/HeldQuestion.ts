/**
 * Keeps a peer's question how far a download is until there is something to say, and keeps a place for that peer. So it has the bytes as
 * soon as they are here, and asks seldom.
 */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import type * as Digest from "@spegel-ts/oci/Digest"
import { Effect, Option } from "effect"
import type { ContentRequest } from "../../ContentId.ts"
import * as FollowPolicy from "../follow/FollowPolicy.ts"
import type * as DownloadState from "./DownloadState.ts"
import type { Followers } from "./Followers.ts"
import type { OwnDownloads } from "./OwnDownloads.ts"

export interface HeldQuestionOptions {
  readonly downloads: OwnDownloads
  readonly followers: Followers
}

/** Returns once the question can be answered: by what is held, by a part of it, or by other peers' ids; or after a while. */
export const hold = Effect.fnUntraced(function*(
  { downloads, followers }: HeldQuestionOptions,
  request: ContentRequest,
  digest: Digest.Digest,
  asked: DownloadState.Asked
) {
  const until = (yield* MonotonicTime.millis) + FollowPolicy.holdMillis
  while (true) {
    const download = yield* downloads.glance(digest)
    const now = yield* MonotonicTime.millis
    if (Option.isNone(download) || now >= until) return
    const { origin, written } = download.value.state
    const isEnough = request._tag === "Blob" && written > asked.start
    if (isEnough || origin === "stalled" || !followers.hasPlace(digest, asked, now)) return
    followers.expect(digest, asked, now + FollowPolicy.placeMillis)
    yield* Effect.sleep(FollowPolicy.glanceMillis)
  }
})
