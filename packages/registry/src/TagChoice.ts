/**
 * What a tag points to where peers disagree, as they do after it was moved: the digest that most of those who answered
 * name, and among equals the smallest. So the same answers lead to the same choice on every node.
 */
import type { Digest } from "@spegel-ts/oci/Digest"

/** The candidate whose digest is chosen; undefined without candidates. The first of equals is taken. */
export const choose = <A extends { readonly digest: Digest }>(candidates: ReadonlyArray<A>): A | undefined => {
  const votes = votesOf(candidates)
  const [chosen] = [...votes].toSorted(([one, some], [other, more]) => more - some || (one < other ? -1 : 1))
  return candidates.find(({ digest }) => digest === chosen?.[0])
}

/** How many name each digest. */
export const votesOf = (candidates: ReadonlyArray<{ readonly digest: Digest }>): ReadonlyMap<Digest, number> => {
  const votes = new Map<Digest, number>()
  for (const { digest } of candidates) votes.set(digest, (votes.get(digest) ?? 0) + 1)
  return votes
}
