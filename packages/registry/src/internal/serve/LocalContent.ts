/**
 * What this node can answer from its own store. With a namespace (`?ns=`, which containerd always sends) the name is
 * complete. Without one, as skopeo, crane and curl ask, a digest is enough; a tag is found when the name begins with a
 * registry host, or when exactly one registry holds the name and tag.
 */
import { ContentNotFound, ContentStore, type Name, type StoreUnavailable } from "@spegel-ts/content/ContentStore"
import type { Digest } from "@spegel-ts/oci/Digest"
import * as DistributionError from "@spegel-ts/oci/DistributionError"
import { looksLikeRegistry } from "@spegel-ts/oci/Grammar"
import type { Reference } from "@spegel-ts/oci/Reference"
import { Effect, Option, Stream } from "effect"

type LocalError = ContentNotFound | StoreUnavailable

/** A repository of which the registry is known, or may be one of those that hold it. */
export interface RepositoryName {
  readonly namespace: Option.Option<string>
  readonly repository: string
}

/** None for what is not held. */
export const ifHeld = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.catchIf(Effect.asSome(effect), (error) => error instanceof ContentNotFound, () => Effect.succeedNone)

/** The complete name where it can be told without asking what is held. */
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

  /** Names held of a repository, of all registries that the request may mean. */
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
    DistributionError.nameUnknown(
      `${registries.join(" and ")} both hold ${repository}: put the registry in front, or give it as ?ns=`
    )

  return {
    /** The digest that a tag points to here. */
    resolve: Effect.fnUntraced(
      function*(
        name: RepositoryName,
        tag: string
      ): Effect.fn.Return<Digest, LocalError | DistributionError.DistributionError> {
        const known = complete(name)
        if (Option.isSome(known)) return yield* store.resolve({ ...known.value, tag })
        const held = (yield* namesOf(name)).filter(({ reference }) => reference.tag === tag)
        const [only, ...more] = held
        if (only === undefined) {
          return yield* DistributionError.manifestUnknown(
            `no registry's ${name.repository}:${tag} is held by this node; without ?ns= only local content is served`
          )
        }
        if (more.length > 0) return yield* ambiguous(registriesOf(held), name.repository)
        return only.digest
      }
    ),

    /** Tags held of a repository, in order. */
    tags: Effect.fnUntraced(
      function*(
        name: RepositoryName
      ): Effect.fn.Return<ReadonlyArray<string>, StoreUnavailable | DistributionError.DistributionError> {
        const held = yield* namesOf(name)
        const registries = registriesOf(held)
        if (registries.length === 0) {
          return yield* DistributionError.nameUnknown(`${name.repository} is not held by this node`)
        }
        if (registries.length > 1) return yield* ambiguous(registries, name.repository)
        return held.flatMap(({ reference }) => reference.tag ?? []).toSorted()
      }
    )
  }
})
