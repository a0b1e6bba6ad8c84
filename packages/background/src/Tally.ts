/** How many of each kind are under way. */

/** Counts by key. A key whose count is 0 takes no memory, so that the size is that of what is under way. */
export class Tally<Key> {
  readonly #counts = new Map<Key, number>()

  /** The count of a key; 0 if nothing was added. */
  of(key: Key): number {
    return this.#counts.get(key) ?? 0
  }

  /** Adds 1 where one begins, -1 where one ends. */
  add(key: Key, change: 1 | -1): void {
    const count = this.of(key) + change
    if (count > 0) this.#counts.set(key, count)
    else this.#counts.delete(key)
  }
}
