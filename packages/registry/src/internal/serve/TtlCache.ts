/** Values kept for a second after they were made, for as long as many may ask for them at once: at most 64. */
const maxEntries = 64
const keepMillis = 1000

/** `now` is a time as `MonotonicTime.millis` has it. */
export class TtlCache<A> {
  /** Oldest first. */
  readonly #entries = new Map<string, { readonly value: A; readonly until: number }>()

  get(key: string, now: number): A | undefined {
    const entry = this.#entries.get(key)
    if (entry === undefined) return undefined
    if (entry.until > now) return entry.value
    this.#entries.delete(key)
    return undefined
  }

  set(key: string, value: A, now: number): void {
    this.#entries.delete(key)
    this.#entries.set(key, { value, until: now + keepMillis })
    const oldest = this.#entries.keys().next().value
    if (this.#entries.size > maxEntries && oldest !== undefined) this.#entries.delete(oldest)
  }
}
