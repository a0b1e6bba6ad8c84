/**
 * When this node last knew that downloads from upstream go on, by its own peers: it tells that to those that wait for it in turn. Without
 * news from the node that downloads, all that wait know the same time, and give up.
 */
import { BoundedMap } from "@spegel-ts/background/BoundedMap"

const maxContents = 1000

export class Evidence {
  readonly #shownAt = new BoundedMap<string, number>(maxContents)

  /** `at` is as `MonotonicTime.millis` has it. */
  shown(content: string, at: number): void {
    if (at > this.lastAt(content)) this.#shownAt.set(content, at)
  }

  /** -Infinity if it never knew. */
  lastAt(content: string): number {
    return this.#shownAt.get(content) ?? -Infinity
  }
}
