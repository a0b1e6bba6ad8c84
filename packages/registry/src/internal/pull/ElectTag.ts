/**
 * Elects the manifest of a tag. Only a peer's word says which one a tag points to, and peers differ after a tag was moved. So
 * the first manifest is compared with the digests that other providers name (`TagChoice`). A second manifest is fetched only if
 * another one is chosen. If that one does not come in time, upstream is asked; where nobody proves anything, the first one is
 * answered.
 */
import * as DistributionRequest from "@spegel-ts/oci/DistributionRequest"
import { Duration, Effect, Exit, Option, Scope } from "effect"
import * as ContentId from "../../ContentId.ts"
import { TagUndecided } from "../../MirrorError.ts"
import type { BufferedBody } from "../mirror/BufferedBodies.ts"
import * as PeerAddress from "../mirror/PeerAddress.ts"
import type { PeerAnswer } from "../mirror/PeerAnswer.ts"
import * as TagChoice from "../mirror/TagChoice.ts"
import * as AskOthers from "./AskOthers.ts"
import * as AskPeer from "./AskPeer.ts"
import * as Attempt from "./Attempt.ts"
import * as Hold from "./Hold.ts"
import * as Pull from "./Pull.ts"

type ManifestRequest = Extract<ContentId.ContentRequest, { readonly _tag: "Manifest" }>

/** The manifest that peers agree on. Fails with `TagUndecided` if they do not, or if there is a key and it does not come in time. */
export const elect = Effect.fnUntraced(function*(
  pull: Pull.Pull,
  request: ManifestRequest,
  { scope, value: first }: Attempt.Won<BufferedBody>
): Effect.fn.Return<BufferedBody, TagUndecided> {
  const { mirror, peers } = pull
  const { options: { hedgeDelay }, peerAuth } = mirror
  const isKeyed = peerAuth !== "off"
  const { answered, unanswered } = yield* AskOthers.all(
    peers,
    // A liar that is found and answers first, or whose other peers have nothing, must not be the only one that is heard.
    { first: first.peer, time: hedgeDelay, thoroughly: isKeyed },
    ({ peer }) => AskPeer.ask(mirror, request, peer, { head: true })
  )
  for (const other of answered) Pull.served(pull, other)
  const { choice, disagreement } = TagChoice.choose(peerAuth, {
    claims: [first, ...answered.map(({ value }) => value)],
    unanswered
  })
  const content = ContentId.print(pull.content)
  if (disagreement !== undefined) {
    const decision = choice._tag === "Chosen" ? `answering ${choice.digest}` : "leaving it to upstream"
    yield* Effect.logWarning(`peers disagree about ${content} (${disagreement}): ${decision}`)
  }
  const undecided = (reason: string) => new TagUndecided({ content, reason, tried: pull.record.failures })
  if (choice._tag === "Undecided") return yield* undecided(choice.reason)
  const { digest } = choice
  if (digest === first.digest) return first
  // Its memory is needed for the one that was chosen.
  if (isKeyed) yield* Scope.close(scope, Exit.void)
  const reference = DistributionRequest.ManifestReference.Digest({ digest })
  const holders = answered.filter(({ value }) => value.digest === digest)
  const manifest = yield* readFromAny(pull, { ...request, reference }, oneOfEachAddress(holders))
  if (Option.isSome(manifest)) return manifest.value
  if (isKeyed) {
    return yield* undecided(`most say ${digest}, and none of them gave it within ${Duration.toMillis(hedgeDelay)} ms`)
  }
  yield* Effect.logWarning(`${digest} was not given in time: answering ${first.digest} for ${content}`)
  return first
})

const oneOfEachAddress = (holders: ReadonlyArray<Attempt.Won<PeerAnswer>>): ReadonlyArray<Attempt.Won<PeerAnswer>> => [
  ...new Map(holders.map((holder) => [PeerAddress.of(holder.value.peer), holder])).values()
]

/** The manifest from the holder that gives it first, asked all at once: one that agrees may still keep the others waiting. */
const readFromAny = (
  pull: Pull.Pull,
  request: ManifestRequest,
  holders: ReadonlyArray<Attempt.Won<PeerAnswer>>
): Effect.Effect<Option.Option<BufferedBody>> => {
  const read = (holder: Attempt.Won<PeerAnswer>) =>
    Scope.provide(Hold.manifest(pull, request, holder), holder.scope).pipe(
      Effect.tapError((error) => Attempt.leave(pull.peers, holder, error)),
      Effect.onInterrupt(() => Scope.close(holder.scope, Exit.void))
    )
  return Effect.raceAll(holders.map(read)).pipe(
    Effect.option,
    Effect.timeoutOrElse({ duration: pull.mirror.options.hedgeDelay, orElse: () => Effect.succeedNone })
  )
}
