/** Holds wrong bytes against the peers that sent them. */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import type * as Digest from "@spegel-ts/oci/Digest"
import type { Peer } from "@spegel-ts/router/Peer"
import { Effect, Option } from "effect"
import * as ContentId from "../../ContentId.ts"
import { nameOf } from "../mirror/PeerAnswer.ts"
import * as RegistryMetrics from "../observe/RegistryMetrics.ts"
import type { Verdict } from "../verify/WatchedDownload.ts"
import * as AskPeer from "./AskPeer.ts"
import type { MirrorParts } from "./MirrorParts.ts"

/**
 * Bytes were wrong: no peer that sent any of them is asked for this content again. Each is told, and checks what it holds. Only a
 * peer that sent all of them, the `liar`, is known to be wrong.
 */
export const exclude = Effect.fnUntraced(function*(
  mirror: MirrorParts,
  request: ContentId.ContentRequest,
  content: ContentId.ContentId,
  senders: ReadonlyArray<Peer>,
  liar: Peer | undefined
) {
  for (const peer of senders) yield* Effect.forkIn(AskPeer.complain(mirror, request, peer), mirror.scope)
  mirror.memory.corrupted(senders, content, yield* MonotonicTime.millis, liar)
  yield* RegistryMetrics.corrupted
  const name = ContentId.print(content)
  yield* Effect.logWarning(
    liar === undefined
      ? `wrong bytes came for ${name}, some of them from ${senders.map(nameOf).join(", ")}: not asked for it any more`
      : `${nameOf(liar)}: sent wrong bytes for ${name}: not asked for it any more`
  ).pipe(Effect.annotateLogs({ peers: senders.map(({ id }) => id).join(", "), content: name }))
})

/** Takes what was learnt of the peers that sent a download of containerd. */
export const judge = (
  mirror: MirrorParts,
  request: ContentId.ContentRequest,
  digest: Digest.Digest,
  verdict: Verdict
): Effect.Effect<void> => {
  const content = ContentId.ContentId.Digest({ digest })
  switch (verdict._tag) {
    case "Right":
      return Effect.sync(() => mirror.memory.believed(verdict.senders, content))
    case "Doubted":
      return Effect.map(MonotonicTime.millis, (now) => mirror.memory.doubted(verdict.senders, content, now))
    case "Wrong":
      return exclude(mirror, request, content, verdict.senders, Option.getOrUndefined(verdict.liar))
  }
}
