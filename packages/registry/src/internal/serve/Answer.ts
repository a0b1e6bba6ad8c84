/** The answer to a request, as a fact from which metrics, spans and the log of pulls are made. */

/** The origin of content. */
export type Source =
  | { readonly _tag: "Local" }
  | { readonly _tag: "Peer"; readonly id: string }

export type Answer =
  | {
    /** The body was sent to its end. No `source`: it was a document about the registry itself. */
    readonly _tag: "Served"
    readonly status: number
    /** The size of the body. HEAD announces it, and sends no body. */
    readonly bytes: number
    readonly source?: Source
  }
  | {
    /** The request got an error, whose text is `reason`. */
    readonly _tag: "Refused"
    readonly status: number
    /** The size of the error's body. */
    readonly bytes: number
    readonly reason: string
  }
  | {
    /** The connection was closed before the answer was complete. */
    readonly _tag: "Interrupted"
    /** The size of the body that was to be sent; 0 if no head went out. */
    readonly bytes: number
    readonly source?: Source | undefined
    readonly reason: string
  }

export type Served = Extract<Answer, { readonly _tag: "Served" }>

export const local: Source = { _tag: "Local" }

/** The HTTP status; 0 for an answer that was interrupted. */
export const statusOf = (answer: Answer): number => answer._tag === "Interrupted" ? 0 : answer.status

/** `local`, a peer's id, or `none`. */
export const sourceOf = (answer: Answer): string => {
  const source = answer._tag === "Refused" ? undefined : answer.source
  return source === undefined ? "none" : source._tag === "Local" ? "local" : source.id
}

export const reasonOf = (answer: Answer): string | undefined => answer._tag === "Served" ? undefined : answer.reason
