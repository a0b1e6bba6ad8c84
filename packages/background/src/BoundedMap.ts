/** A `Map` with room for a fixed number of entries: what others make this process remember must not grow without end. */

/**
 * Holds at most `capacity` entries. `set` makes its key the newest, and evicts the oldest where there is no room left; `get` changes
 * no order. Iteration is from the oldest to the newest.
 */
export class BoundedMap<Key, Value> extends Map<Key, Value> {
  readonly #capacity: number

  constructor(capacity: number) {
    super()
    this.#capacity = capacity
  }

  override set(key: Key, value: Value): this {
    this.delete(key)
    super.set(key, value)
    if (this.size > this.#capacity) {
      const oldest = this.keys().next()
      if (!oldest.done) this.delete(oldest.value)
    }
    return this
  }
}
