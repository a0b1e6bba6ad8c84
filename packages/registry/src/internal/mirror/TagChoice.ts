/**
 * The digest that a tag means, by the claims of peers. Claims count by the address that answered, so that one machine has one vote
 * whatever number of peers it claims to be. Nothing is chosen that could be the word of one machine against others: then upstream,
 * which knows, is asked.
 *
 * In a cluster with a key, only the claims of peers that proved themselves count if there are any; other claims need two addresses
 * that agree. An address that was asked in vain might disagree, so the chosen digest has to have as many votes as there are such.
 */
import type { PeerAuthMode } from "@spegel-ts/cluster-key/PeerAuth"
import type { Digest } from "@spegel-ts/oci/Digest"
import type { Peer } from "@spegel-ts/router/Peer"
import { Data } from "effect"
import * as PeerAddress from "./PeerAddress.ts"

/** The word of a peer, at the address that answered. */
export interface Claim {
  readonly peer: Peer
  readonly digest: Digest
}

/** What the peers that were asked for a tag have said. */
export interface Answers {
  readonly claims: ReadonlyArray<Claim>
  /** Those that said neither a digest nor that they have none. */
  readonly unanswered: ReadonlyArray<Peer>
}

export type Choice = Data.TaggedEnum<{
  Chosen: { readonly digest: Digest }
  /** It is left to upstream, for this reason. */
  Undecided: { readonly reason: string }
}>
export const Choice = Data.taggedEnum<Choice>()

const isProved = ({ proved = false }: Peer) => proved
const addressesOf = (peers: ReadonlyArray<Peer>): ReadonlySet<string> => new Set(peers.map(PeerAddress.of))

/** The choice, and the votes in words if they differ. */
export const choose = (
  mode: PeerAuthMode,
  { claims, unanswered }: Answers
): { readonly choice: Choice; readonly disagreement: string | undefined } => {
  const proved = mode === "off" ? [] : claims.filter(({ peer }) => isProved(peer))
  const counted = proved.length > 0 ? proved : claims
  const votes = [...Map.groupBy(counted, ({ digest }) => digest)]
    .map(([digest, claims]) => ({ digest, count: addressesOf(claims.map(({ peer }) => peer)).size }))
    .toSorted((one, other) => other.count - one.count)
  const [first, second] = votes
  const said = votes.map(({ count, digest }) => `${count} say ${digest}`).join(", ")
  const undecided = (reason: string) => Choice.Undecided({ reason })
  const decide = (): Choice => {
    if (first === undefined) return undecided("no peer says which one it is")
    if (first.count === second?.count) return undecided(`peers disagree (${said})`)
    if (mode === "off") return Choice.Chosen({ digest: first.digest })
    const voters = addressesOf(counted.map(({ peer }) => peer))
    if (proved.length === 0 && (mode === "require" || voters.size === 1)) {
      return undecided("only a peer says so that has not proved itself")
    }
    const mayDiffer = [...addressesOf(proved.length > 0 ? unanswered.filter(isProved) : unanswered)]
      .filter((address) => !voters.has(address))
    return mayDiffer.length > first.count
      ? undecided(`${first.count} say ${first.digest}, and ${mayDiffer.length} did not answer in time`)
      : Choice.Chosen({ digest: first.digest })
  }
  return { choice: decide(), disagreement: votes.length > 1 ? said : undefined }
}
