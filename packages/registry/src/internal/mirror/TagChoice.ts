/**
 * Peers disagree about a tag after it was moved. Then the digest that most of them name is chosen, and among equals the smallest:
 * the same answers lead to the same choice on every node.
 */
import type { Digest } from "@spegel-ts/oci/Digest"

type Named = { readonly digest: Digest }

/** The candidate to take, the first of those that name its digest; and the votes in words, if they differ. */
export const choose = <A extends Named>(
  candidates: readonly [A, ...ReadonlyArray<A>]
): { readonly chosen: A; readonly disagreement: string | undefined } => {
  const votes = new Map<Digest, number>()
  for (const { digest } of candidates) votes.set(digest, (votes.get(digest) ?? 0) + 1)
  const votesOf = ({ digest }: Named) => votes.get(digest) ?? 0
  const chosen = candidates.reduce((one, other) =>
    votesOf(other) > votesOf(one) || (votesOf(other) === votesOf(one) && other.digest < one.digest) ? other : one
  )
  const said = [...votes].map(([digest, count]) => `${count} say ${digest}`).join(", ")
  return { chosen, disagreement: votes.size > 1 ? said : undefined }
}
