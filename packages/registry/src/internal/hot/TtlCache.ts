/** Values kept for a second after they were made, for as long as many may ask for them at once: at most 64. */
import { BoundedMap } from "@spegel-ts/background/BoundedMap"

const maxEntries = 64
const keepMillis = 1000

/** `now` is a time as `MonotonicTime.millis` has it. */
export class TtlCache<A> {
  readonly #entries = new BoundedMap<string, { readonly value: A; readonly until: number }>(maxEntries)

  get(key: string, now: number): A | undefined {
    const entry = this.#entries.get(key)
    if (entry === undefined) return undefined
    if (entry.until > now) return entry.value
    this.#entries.delete(key)
    return undefined
  }

  set(key: string, value: A, now: number): void {
    this.#entries.set(key, { value, until: now + keepMillis })
  }
}
