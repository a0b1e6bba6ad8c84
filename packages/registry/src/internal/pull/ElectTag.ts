/**
 * Elects the manifest of a tag. Only a peer's word says which one a tag points to, and peers differ after a tag was moved. So
 * the first manifest is compared with the digests that other providers name (`TagChoice`). A second manifest is fetched only if
 * another one is chosen.
 */
import * as DistributionRequest from "@spegel-ts/oci/DistributionRequest"
import { Effect, Option, Result, Scope } from "effect"
import * as ContentId from "../../ContentId.ts"
import type { BufferedBody } from "../mirror/BufferedBodies.ts"
import type { PeerAnswer } from "../mirror/PeerAnswer.ts"
import * as TagChoice from "../mirror/TagChoice.ts"
import * as AskOthers from "./AskOthers.ts"
import * as AskPeer from "./AskPeer.ts"
import * as Attempt from "./Attempt.ts"
import * as Hold from "./Hold.ts"
import * as Pull from "./Pull.ts"

type ManifestRequest = Extract<ContentId.ContentRequest, { readonly _tag: "Manifest" }>

/** The manifest that all nodes would choose; the first, if that one cannot be had in time. */
export const elect = Effect.fnUntraced(function*(pull: Pull.Pull, request: ManifestRequest, first: BufferedBody) {
  const { mirror, peers } = pull
  const { hedgeDelay } = mirror.options
  const others = yield* AskOthers.all(
    peers,
    hedgeDelay,
    ({ peer }) => AskPeer.ask(mirror, request, peer, { head: true })
  )
  for (const other of others) Pull.served(pull, other)
  const { chosen, disagreement } = TagChoice.choose([first, ...others.map(({ value: { digest } }) => ({ digest }))])
  if (disagreement === undefined) return first
  const content = ContentId.print(pull.content)
  yield* Effect.logWarning(`peers disagree about ${content} (${disagreement}): answering ${chosen.digest}`)
  if (chosen.digest === first.digest) return first
  const reference = DistributionRequest.ManifestReference.Digest({ digest: chosen.digest })
  const holders = others.filter(({ value: { digest } }) => digest === chosen.digest)
  const manifest = yield* Effect.timeoutOrElse(readFromAny(pull, { ...request, reference }, holders), {
    duration: hedgeDelay,
    orElse: () => Effect.succeedNone
  })
  if (Option.isSome(manifest)) return manifest.value
  yield* Effect.logWarning(`${chosen.digest} was not given in time: answering ${first.digest} for ${content}`)
  return first
})

/** The manifest from the first of its holders that gives it. */
const readFromAny = Effect.fnUntraced(function*(
  pull: Pull.Pull,
  request: ManifestRequest,
  holders: ReadonlyArray<Attempt.Won<PeerAnswer>>
) {
  for (const holder of holders) {
    const manifest = yield* Effect.result(Scope.provide(Hold.manifest(pull, request, holder), holder.scope))
    if (Result.isSuccess(manifest)) return Option.some(manifest.success)
    yield* Attempt.leave(pull.peers, holder, manifest.failure)
  }
  return Option.none()
})
