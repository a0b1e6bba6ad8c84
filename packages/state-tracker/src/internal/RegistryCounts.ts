/** Counts of what is held, by registry host, updated as names come and go. */
import type { Name } from "@spegel-ts/content/ContentStore"
import type { Digest } from "@spegel-ts/oci/Digest"

interface Registry {
  /** Names held. */
  tags: number
  /** Manifests, with the number of names that point to each. */
  readonly manifests: Map<Digest, number>
}

export class RegistryCounts {
  /** Digests held; they belong to no registry. */
  digests = 0
  readonly #registries = new Map<string, Registry>()

  /** Registries that have names. */
  get registries(): ReadonlyMap<string, { readonly tags: number; readonly manifests: { readonly size: number } }> {
    return this.#registries
  }

  addName({ digest, reference }: Name): void {
    const registry = this.#registries.get(reference.registry) ?? { tags: 0, manifests: new Map<Digest, number>() }
    this.#registries.set(reference.registry, registry)
    registry.tags++
    registry.manifests.set(digest, (registry.manifests.get(digest) ?? 0) + 1)
  }

  removeName({ digest, reference }: Name): void {
    const registry = this.#registries.get(reference.registry)
    if (registry === undefined) return
    registry.tags--
    const names = (registry.manifests.get(digest) ?? 0) - 1
    if (names > 0) registry.manifests.set(digest, names)
    else registry.manifests.delete(digest)
    if (registry.tags === 0) this.#registries.delete(reference.registry)
  }
}
