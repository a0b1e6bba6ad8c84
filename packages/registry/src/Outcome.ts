/** The end of one peer's part in a pull. */
import { Data } from "effect"

/** The outcome of one attempt at a peer, as the pull log shows it. The mirror takes no decision by it. */
export type Outcome = Data.TaggedEnum<{
  /** It was asked, and the request ended before its first byte came. */
  Unanswered: {}
  /** Its bytes were passed on, and the client went away meanwhile. */
  ClientGone: {}
  /** It gave all that it was asked for. */
  Served: {}
  /** It was asked, and another peer answered first. */
  SlowerThanAnother: {}
  /** It was asked for a part, to compare its throughput with that of the peer in use. */
  Compared: {}
  /** It failed, and was left for another peer or for upstream. */
  Failed: { readonly reason: string }
  /** It was asked after others, or not at all, because of what it did before. */
  Deferred: { readonly reason: string }
}>
export const Outcome = Data.taggedEnum<Outcome>()

/** The outcome in words, to follow the peer's address. */
export const print: (outcome: Outcome) => string = Outcome.$match({
  Unanswered: () => "no answer in time",
  ClientGone: () => "the client went away",
  Served: () => "served",
  SlowerThanAnother: () => "slower than another peer",
  Compared: () => "asked to compare its throughput",
  Failed: ({ reason }) => reason,
  Deferred: ({ reason }) => `asked after others, if at all: it ${reason}`
})
