/** Kademlia's distance: the exclusive or of two sha2-256 hashes, compared as a number. */
import { hash } from "node:crypto"

/** The sha2-256 hash that a key or a peer is placed by. */
export type Position = Uint8Array

/** The position of a DHT key or of a peer id, from its bytes. */
export const positionOf = (bytes: Uint8Array): Position => hash("sha256", bytes, "buffer")

/** Negative if `a` is closer to `target` than `b`, positive if it is further away. */
export const compare = (target: Position, a: Position, b: Position): number => {
  for (let index = 0; index < target.length; index++) {
    const byte = target[index] ?? 0
    const difference = (byte ^ (a[index] ?? 0)) - (byte ^ (b[index] ?? 0))
    if (difference !== 0) return difference
  }
  return 0
}

/** The `count` items closest to `target` among those that pass, the closest first. Avoids a full sort. */
export const closest = <A extends { readonly position: Position }>(
  target: Position,
  items: Iterable<A>,
  count: number,
  passes: (item: A) => boolean = () => true
): Array<A> => {
  const found: Array<A> = []
  for (const item of items) {
    if (!passes(item)) continue
    const last = found[count - 1]
    if (last !== undefined && compare(target, item.position, last.position) >= 0) continue
    let at = Math.min(found.length, count - 1)
    for (; at > 0; at--) {
      const before = found[at - 1]
      if (before === undefined || compare(target, before.position, item.position) <= 0) break
      found[at] = before
    }
    found[at] = item
  }
  return found
}
