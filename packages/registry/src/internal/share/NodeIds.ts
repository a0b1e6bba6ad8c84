/** Ids of nodes in headers, each behind a space. */

/** One id, for a regular expression. */
export const nodeId = "[A-Za-z0-9.:-]{1,128}"

/** At most `most` ids, for a regular expression. */
export const upTo = (most: number): string => `(?: ${nodeId}){0,${most}}`

/** The ids in what `upTo` has matched. */
export const of = (matched: string): ReadonlyArray<string> => matched.split(" ").slice(1)
