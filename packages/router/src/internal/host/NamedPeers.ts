/** Peers as log lines name them. */

/** Names that one line has. */
const maxNames = 3

/** The first names, and how many more there are. */
export const listed = (names: ReadonlyArray<string>): string => {
  const first = names.slice(0, maxNames).join(", ")
  return names.length > maxNames ? `${first} and ${names.length - maxNames} more` : first
}
