/** Asks a peer how far a download has come that it has in progress. */
import type { Peer } from "@spegel-ts/router/Peer"
import { Effect } from "effect"
import type { PeerError } from "../../MirrorError.ts"
import * as AskPeer from "../pull/AskPeer.ts"
import type { Pull } from "../pull/Pull.ts"
import type { DownloadState } from "../share/DownloadState.ts"

/** `held`: the content is complete there. `gone`: the peer has neither the content nor a download of it. */
export type Probed =
  | { readonly _tag: "Held" }
  | { readonly _tag: "Gone" }
  | { readonly _tag: "Downloading"; readonly state: DownloadState }

/**
 * `start` is the first byte wanted: the peer may wait with its answer until it has it (`FollowPolicy.holdMillis`). Fails if it does not
 * answer within so many milliseconds, or not as it should.
 */
export const ask = (
  pull: Pull,
  peer: Peer,
  start: number,
  millis: number
): Effect.Effect<Probed, PeerError | "late"> =>
  AskPeer.ask(pull.mirror, pull.request, peer, { head: true, inProgress: { asker: pull.mirror.self, start } }).pipe(
    Effect.map(({ download }): Probed =>
      download === undefined ? { _tag: "Held" } : { _tag: "Downloading", state: download }
    ),
    Effect.catchTag(
      "PeerStillDownloading",
      ({ state }) => Effect.succeed<Probed>({ _tag: "Downloading", state })
    ),
    Effect.catchIf(
      (error) => error._tag === "PeerRefused" && error.status === 404,
      () => Effect.succeed<Probed>({ _tag: "Gone" })
    ),
    Effect.scoped,
    Effect.timeoutOrElse({ duration: millis, orElse: () => Effect.fail("late" as const) })
  )
