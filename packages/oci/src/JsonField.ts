/**
 * Fields of JSON objects as Go's encoding/json finds them, which is what containerd reads and many registries write.
 */

/** Go's folding of case, for names of ASCII letters: the long s is an s, the Kelvin sign a k. */
export const fold = (key: string): string => key.replaceAll("\u017f", "s").toLowerCase()

/** The value of a key in any case, the last of several; undefined if there is none, or it is null. */
export const get = (document: unknown, name: string): unknown => {
  if (typeof document !== "object" || document === null || Array.isArray(document)) return undefined
  const folded = fold(name)
  const last = Object.entries(document).findLast(([key, value]) => value !== null && fold(key) === folded)
  return last?.[1] as unknown
}
