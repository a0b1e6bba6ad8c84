/**
 * Finds what a request means in this node's own store. With a namespace (`?ns=`, which containerd always sends) a name is
 * complete. Without one, as skopeo, crane and curl ask, a digest is enough. A tag is found if the name begins with a
 * registry host, or if exactly one registry holds that name and tag.
 */
import { ContentNotFound, ContentStore, type Name, type StoreUnavailable } from "@spegel-ts/content/ContentStore"
import type { Digest } from "@spegel-ts/oci/Digest"
import { looksLikeRegistry } from "@spegel-ts/oci/Grammar"
import type { Reference } from "@spegel-ts/oci/Reference"
import { Effect, Option, Stream } from "effect"
import { Refusal, Refused } from "./Refusal.ts"

/** A repository whose registry is known, or has to be inferred from the names that are held. */
export interface RepositoryName {
  readonly namespace: Option.Option<string>
  readonly repository: string
}

/** None for what is not held. */
export const ifHeld = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.catchIf(Effect.asSome(effect), (error) => error instanceof ContentNotFound, () => Effect.succeedNone)

/** The complete name, if the request alone determines it. */
export const complete = (name: RepositoryName): Option.Option<Reference> => {
  if (Option.isSome(name.namespace)) {
    return Option.some({ registry: name.namespace.value, repository: name.repository })
  }
  const slash = name.repository.indexOf("/")
  const first = name.repository.slice(0, Math.max(0, slash))
  return looksLikeRegistry(first)
    ? Option.some({ registry: first, repository: name.repository.slice(slash + 1) })
    : Option.none()
}

export const make = Effect.gen(function*() {
  const store = yield* ContentStore

  /** The held names of a repository, of all registries that the request may mean. */
  const namesOf = (name: RepositoryName): Effect.Effect<ReadonlyArray<Name>, StoreUnavailable> => {
    const known = complete(name)
    return store.names.pipe(
      Stream.filter(({ reference }) =>
        Option.isSome(known)
          ? reference.registry === known.value.registry && reference.repository === known.value.repository
          : reference.repository === name.repository
      ),
      Stream.runCollect
    )
  }

  const registriesOf = (names: ReadonlyArray<Name>): ReadonlyArray<string> =>
    [...new Set(names.map(({ reference }) => reference.registry))].toSorted()

  const ambiguous = (registries: ReadonlyArray<string>, repository: string) =>
    new Refused({ refusal: Refusal.Ambiguous({ registries, repository }) })

  return {
    /** The digest that a tag points to here. Fails with `ContentNotFound` if the complete name is not held. */
    resolve: Effect.fnUntraced(
      function*(
        name: RepositoryName,
        tag: string
      ): Effect.fn.Return<Digest, ContentNotFound | Refused | StoreUnavailable> {
        const { repository } = name
        const known = complete(name)
        if (Option.isSome(known)) return yield* store.resolve({ ...known.value, tag })
        const held = (yield* namesOf(name)).filter(({ reference }) => reference.tag === tag)
        const [only, ...more] = held
        if (only === undefined) return yield* new Refused({ refusal: Refusal.TagNotHeld({ repository, tag }) })
        if (more.length > 0) return yield* ambiguous(registriesOf(held), repository)
        return only.digest
      }
    ),

    /** The held tags of a repository, sorted. */
    tags: Effect.fnUntraced(
      function*(name: RepositoryName): Effect.fn.Return<ReadonlyArray<string>, Refused | StoreUnavailable> {
        const { repository } = name
        const held = yield* namesOf(name)
        const registries = registriesOf(held)
        if (registries.length === 0) return yield* new Refused({ refusal: Refusal.RepositoryNotHeld({ repository }) })
        if (registries.length > 1) return yield* ambiguous(registries, repository)
        return held.flatMap(({ reference }) => reference.tag ?? []).toSorted()
      }
    )
  }
})

export type LocalContent = Effect.Success<typeof make>
