/** Where the bytes of downloads came from, by the mirrors' own logs of requests: whether a node got its own bytes. */

/** A node took bytes of a content from another one. */
export interface Taken {
  readonly content: string
  /** The names of nodes. */
  readonly by: string
  readonly from: string
  /** The first byte, and the one after the last. */
  readonly start: number
  readonly end: number
}

/** Bytes that came back to the node that sent them: its name first, then those that they passed through, latest first. */
export interface Ring {
  readonly content: string
  readonly nodes: ReadonlyArray<string>
}

/**
 * Rings of nodes that took the same bytes from each other; one of a single node took its own. A node of `forgetful` may have lost
 * what it had sent, and may get it back.
 */
export const rings = (taken: ReadonlyArray<Taken>, forgetful: ReadonlySet<string>): ReadonlyArray<Ring> =>
  [...Map.groupBy(taken, ({ content }) => content)].flatMap(([content, edges]) => {
    const followed = edges.filter(({ by, from }) => by === from || !forgetful.has(by))
    return followed.flatMap((edge) => ringsFrom(edge, followed)).map((nodes) => ({ content, nodes }))
  })

/** Rings that begin with an edge. Each ring is found from the node whose name is the first in order. */
const ringsFrom = ({ by: root, ...first }: Taken, edges: ReadonlyArray<Taken>) => {
  const follow = (
    path: ReadonlyArray<string>,
    at: string,
    start: number,
    end: number
  ): Array<ReadonlyArray<string>> => {
    if (at === root) return [path]
    const longer = [...path, at]
    return edges
      .filter(({ by, from }) => by === at && (from === root || (from > root && !longer.includes(from))))
      .map((edge) => ({ from: edge.from, start: Math.max(start, edge.start), end: Math.min(end, edge.end) }))
      .filter((common) => common.start < common.end)
      .flatMap((common) => follow(longer, common.from, common.start, common.end))
  }
  return first.from < root ? [] : follow([root], first.from, first.start, first.end)
}
