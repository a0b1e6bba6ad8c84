/**
 * A `Map` of at most `capacity` entries, for keys that other hosts choose: they must not make this process grow without end.
 * `set` makes its key the newest, and evicts the oldest if there is no room left; `get` leaves the order as it is. Iteration is
 * from the oldest to the newest.
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
