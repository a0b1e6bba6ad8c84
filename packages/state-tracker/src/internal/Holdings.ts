/**
 * The names and digests that this node holds, and the keys that the router still has to be told. The cost of a change does
 * not grow with what is held: nothing is listed or counted again.
 */
import type { ContentChange, Name } from "@spegel-ts/content/ContentStore"
import * as Reference from "@spegel-ts/oci/Reference"
import type { RegistryFilter } from "@spegel-ts/oci/RegistryFilter"
import { RegistryCounts } from "./RegistryCounts.ts"

/** Keys to tell the router. */
export interface Untold {
  readonly held: ReadonlyArray<string>
  readonly gone: ReadonlyArray<string>
}

export class Holdings {
  readonly counts = new RegistryCounts()
  readonly #filter: RegistryFilter
  readonly #isPrivate: (digest: string) => boolean
  /** Held keys: names of images, with what they point to, and digests. */
  readonly #held = new Map<string, Name | undefined>()
  /**
   * Keys that the router still has to be told, and whether it may already provide them. All other keys are provided, or
   * just being told, if and only if they are held.
   */
  readonly #untold = new Map<string, boolean>()

  /** Names that `filter` rejects count as not held, and so do digests that `isPrivate` names. */
  constructor(filter: RegistryFilter, isPrivate: (digest: string) => boolean = () => false) {
    this.#filter = filter
    this.#isPrivate = isPrivate
  }

  /** Whether there is nothing to tell the router. */
  get isTold(): boolean {
    return this.#untold.size === 0
  }

  /** Applies one change. Does nothing for `Resync`: call `compare` then. */
  apply(change: ContentChange): void {
    switch (change._tag) {
      case "BlobAdded":
        if (!this.#isPrivate(change.digest)) this.#add(change.digest, undefined)
        return
      case "BlobRemoved":
        return this.#remove(change.digest)
      case "NameAdded":
        if (this.#filter(change.reference)) this.#add(Reference.name(change.reference), change)
        return
      case "NameRemoved":
        return this.#remove(Reference.name(change.reference))
      case "Resync":
        return
    }
  }

  /** Replaces everything by what is held now. */
  compare(names: Iterable<Name>, digests: Iterable<string>): void {
    const listed = new Map<string, Name | undefined>()
    for (const name of names) if (this.#filter(name.reference)) listed.set(Reference.name(name.reference), name)
    for (const digest of digests) if (!this.#isPrivate(digest)) listed.set(digest, undefined)
    for (const key of this.#held.keys()) if (!listed.has(key)) this.#remove(key)
    for (const [key, name] of listed) this.#add(key, name)
  }

  /** Takes at most `count` keys to tell the router. Call `failed` if that fails. */
  next(count: number): Untold {
    const held: Array<string> = []
    const gone: Array<string> = []
    for (const key of this.#untold.keys()) {
      if (held.length + gone.length >= count) break
      this.#untold.delete(key)
      if (this.#held.has(key)) held.push(key)
      else gone.push(key)
    }
    return { held, gone }
  }

  /** The router may or may not know these: they will be told again. */
  failed({ gone, held }: Untold): void {
    for (const key of held) this.#untold.set(key, true)
    for (const key of gone) this.#untold.set(key, true)
  }

  #add(key: string, name: Name | undefined): void {
    const isNew = !this.#held.has(key)
    const before = this.#held.get(key)
    this.#held.set(key, name)
    if (before !== undefined) this.counts.removeName(before)
    if (name !== undefined) this.counts.addName(name)
    else if (isNew) this.counts.digests++
    if (isNew && !this.#untold.has(key)) this.#untold.set(key, false)
  }

  #remove(key: string): void {
    const name = this.#held.get(key)
    if (!this.#held.delete(key)) return
    if (name === undefined) this.counts.digests--
    else this.counts.removeName(name)
    // The router does not have to forget what it was never told.
    if (this.#untold.get(key) === false) this.#untold.delete(key)
    else this.#untold.set(key, true)
  }
}
