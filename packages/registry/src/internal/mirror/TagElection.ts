/**
 * What a tag points to is a peer's word, and after a tag was moved peers differ. So the first manifest of a tag is compared
 * with what other providers say that they have (`TagChoice`); only where another one is chosen is that one fetched.
 */
import * as DistributionRequest from "@spegel-ts/oci/DistributionRequest"
import { type Duration, Effect, Option, Result, Scope } from "effect"
import type { PeerError } from "../../MirrorError.ts"
import type { Held } from "./BufferedBodies.ts"
import type { ContentRequest, Offer } from "./PeerAnswer.ts"
import type * as PeerRace from "./PeerRace.ts"
import * as TagChoice from "./TagChoice.ts"

export interface TagElectionOptions {
  /** The name, for the log. */
  readonly content: string
  readonly request: Extract<ContentRequest, { readonly _tag: "Manifest" }>
  readonly peers: PeerRace.PeerRace
  /** How long other providers are waited for, and then the manifest that was chosen. */
  readonly patience: Duration.Duration
  /** Asks a peer which manifest it has. */
  readonly inquire: PeerRace.Use<Offer>
  /** Fetches a manifest by its digest. */
  readonly read: (
    request: ContentRequest,
    attempt: PeerRace.Attempt
  ) => Effect.Effect<Held, PeerError, Scope.Scope>
  readonly served: (attempt: PeerRace.Attempt) => void
}

/** The manifest that all nodes would choose; the first, where that one cannot be had in time. */
export const elect = Effect.fnUntraced(function*(
  first: Held,
  { content, inquire, patience, peers, read, request, served }: TagElectionOptions
) {
  const others = yield* peers.beside(patience, inquire)
  for (const other of others) served(other)
  const { chosen, disagreement } = TagChoice.choose([first, ...others.map(({ value: { digest } }) => ({ digest }))])
  if (disagreement === undefined) return first
  yield* Effect.logWarning(`peers disagree about ${content} (${disagreement}): answering ${chosen.digest}`)
  if (chosen.digest === first.digest) return first
  const byDigest = { ...request, reference: DistributionRequest.ManifestReference.Digest({ digest: chosen.digest }) }
  const readAny = Effect.gen(function*() {
    for (const other of others.filter(({ value: { digest } }) => digest === chosen.digest)) {
      const manifest = yield* Effect.result(Scope.provide(read(byDigest, other), other.scope))
      if (Result.isSuccess(manifest)) return Option.some(manifest.success)
      yield* peers.leave(other, manifest.failure)
    }
    return Option.none()
  })
  const manifest = yield* Effect.timeoutOrElse(readAny, { duration: patience, orElse: () => Effect.succeedNone })
  if (Option.isSome(manifest)) return manifest.value
  yield* Effect.logWarning(`${chosen.digest} was not given in time: answering ${first.digest} for ${content}`)
  return first
})
