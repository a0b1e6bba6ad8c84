/**
 * Numbers DHT keys, in flat arrays. A key costs 16 bytes and its slots in two tables; an entry of a map of strings costs 100
 * bytes and work for the garbage collector.
 */
import { hash } from "node:crypto"

/** Keys are compared by the first 128 bits of their digest: to confuse two, an attacker needs a collision of these. */
const wordsOfKey = 4
const none = -1
const initialKeys = 1024

/** A longer copy of an array, filled up with zeros. */
export const grown = <A extends Int32Array | Uint32Array>(array: A, length: number): A => {
  const copy = new (array.constructor as new(length: number) => A)(length)
  copy.set(array)
  return copy
}

const multihashLength = 34

/** The words of the current key. They are shared, so that a lookup allocates nothing. */
const words = new Uint32Array(wordsOfKey)

/** Reads the words of a key: from the digest in a multihash, or from a digest of whatever else a peer sent as a key. */
const read = (key: Uint8Array): void => {
  const digest = key.length === multihashLength ? key : hash("sha256", key, "buffer")
  let at = digest.length - 32
  for (let word = 0; word < wordsOfKey; word++, at += 4) {
    words[word] = (digest[at] ?? 0) << 24 | (digest[at + 1] ?? 0) << 16 | (digest[at + 2] ?? 0) << 8 |
      (digest[at + 3] ?? 0)
  }
}

export class KeyTable {
  /** Key numbers by hash, with linear probing. At most half of the slots are used. */
  #slots = new Int32Array(2 * initialKeys).fill(none)
  #words = new Uint32Array(initialKeys * wordsOfKey)
  readonly #free: Array<number> = []
  #used = 0

  /** All numbers assigned so far are below this. */
  get limit(): number {
    return this.#used
  }

  /** The number of a key; -1 if it has none. */
  find(key: Uint8Array): number {
    read(key)
    return this.#slots[this.#slotOf(words)] ?? none
  }

  /** The number of a key, assigned now if it has none. */
  add(key: Uint8Array): number {
    read(key)
    const known = this.#slots[this.#slotOf(words)] ?? none
    if (known !== none) return known
    const number = this.#free.pop() ?? this.#used++
    if (number * wordsOfKey >= this.#words.length) this.#grow()
    this.#words.set(words, number * wordsOfKey)
    this.#slots[this.#slotOf(words)] = number
    return number
  }

  /** Frees a key's number, for another key. */
  remove(number: number): void {
    const mask = this.#slots.length - 1
    let hole = this.#slotOf(this.#wordsOf(number))
    this.#slots[hole] = none
    this.#free.push(number)
    // Entries behind the hole that could no longer be found from their home slot move into it.
    for (let slot = (hole + 1) & mask; this.#slots[slot] !== none; slot = (slot + 1) & mask) {
      const moved = this.#slots[slot] ?? none
      const home = (this.#words[moved * wordsOfKey] ?? 0) & mask
      if (((slot - home) & mask) < ((slot - hole) & mask)) continue
      this.#slots[hole] = moved
      this.#slots[slot] = none
      hole = slot
    }
  }

  #wordsOf(number: number): Uint32Array {
    return this.#words.subarray(number * wordsOfKey, (number + 1) * wordsOfKey)
  }

  /** The slot with the key's number, or the empty slot for it. */
  #slotOf(wanted: Uint32Array): number {
    const mask = this.#slots.length - 1
    let slot = (wanted[0] ?? 0) & mask
    for (let number = this.#slots[slot] ?? none; number !== none; number = this.#slots[slot] ?? none) {
      const at = number * wordsOfKey
      if (
        this.#words[at] === wanted[0] && this.#words[at + 1] === wanted[1] &&
        this.#words[at + 2] === wanted[2] && this.#words[at + 3] === wanted[3]
      ) return slot
      slot = (slot + 1) & mask
    }
    return slot
  }

  #grow(): void {
    const numbers = this.#slots.filter((number) => number !== none)
    this.#words = grown(this.#words, 2 * this.#words.length)
    this.#slots = new Int32Array(2 * this.#slots.length).fill(none)
    for (const number of numbers) {
      this.#slots[this.#slotOf(this.#wordsOf(number))] = number
    }
  }
}
