/** Counts running things by key. A key whose count is 0 takes no memory. */
export class Tally<Key> {
  readonly #counts = new Map<Key, number>()

  /** The count of a key; 0 if nothing was added. */
  of(key: Key): number {
    return this.#counts.get(key) ?? 0
  }

  /** Add 1 when one begins, -1 when it ends. */
  add(key: Key, change: 1 | -1): void {
    const count = this.of(key) + change
    if (count > 0) this.#counts.set(key, count)
    else this.#counts.delete(key)
  }
}
