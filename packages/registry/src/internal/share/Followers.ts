/**
 * The nodes that get this node's downloads as they grow. Each download is sent to a few: its other followers take it from those, so that
 * many nodes get it at the speed of one link.
 */
import type * as Digest from "@spegel-ts/oci/Digest"
import { Effect, type Scope } from "effect"
import type { Asked } from "./DownloadState.ts"

/** With one, a slow node would slow down all behind it; with three, a link is shared by more than it has to be. */
const most = 2
/** Further ones that have lost their source in the middle. */
const moreOrphans = 2

export class Followers {
  readonly #ids = new Map<Digest.Digest, Array<string>>()

  /** Whom `asked` should ask instead; nobody if it may have the download from here. */
  instead(digest: Digest.Digest, { asker, start }: Asked): ReadonlyArray<string> {
    const ids = this.#ids.get(digest) ?? []
    const limit = start === 0 ? most : most + moreOrphans
    return ids.length < limit || ids.includes(asker) ? [] : ids
  }

  /** The nodes that a download is being sent to. */
  of(digest: Digest.Digest): ReadonlyArray<string> {
    return this.#ids.get(digest) ?? []
  }

  /** Counts a follower while the scope is open. */
  admit(digest: Digest.Digest, { asker }: Asked): Effect.Effect<void, never, Scope.Scope> {
    return Effect.acquireRelease(
      Effect.sync(() => void this.#ids.set(digest, [...this.#ids.get(digest) ?? [], asker])),
      () => Effect.sync(() => this.#remove(digest, asker))
    )
  }

  #remove(digest: Digest.Digest, asker: string): void {
    const ids = this.#ids.get(digest) ?? []
    const left = ids.toSpliced(ids.indexOf(asker), 1)
    if (left.length > 0) this.#ids.set(digest, left)
    else this.#ids.delete(digest)
  }
}
