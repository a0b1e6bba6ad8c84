/**
 * The lease of a download from upstream, as nodes tell each other of it in the header `x-spegel-lease`.
 *
 * A request has `ask <id> <ids>`: the node with the first id wants to download content from upstream, and has asked the others for
 * their downloads in vain. The answer is `go`, or `wait <id>`: that node downloads it.
 */

export const leaseHeader = "x-spegel-lease"

export interface Asked {
  /** The id of the node that asks. */
  readonly asker: string
  /** The ids of nodes that it has asked in vain. */
  readonly inVain: ReadonlyArray<string>
}

export type Decision =
  | { readonly _tag: "Go" }
  | { readonly _tag: "Wait"; readonly id: string }

const id = "[A-Za-z0-9.:-]{1,128}"
export const maxInVain = 8
const askedForm = new RegExp(`^ask (${id})((?: ${id}){0,${maxInVain}})$`)
const decisionForm = new RegExp(`^(?:go|wait (${id}))$`)

export const printAsked = ({ asker, inVain }: Asked): string => ["ask", asker, ...inVain].join(" ")

/** Undefined for anything else. */
export const parseAsked = (header: unknown): Asked | undefined => {
  const [, asker, ids = ""] = typeof header === "string" ? askedForm.exec(header) ?? [] : []
  return asker === undefined ? undefined : { asker, inVain: ids.split(" ").slice(1) }
}

export const print = (decision: Decision): string => decision._tag === "Go" ? "go" : `wait ${decision.id}`

/** Undefined for anything else. */
export const parse = (header: string | undefined): Decision | undefined => {
  const match = decisionForm.exec(header ?? "")
  return match === null ? undefined : match[1] === undefined ? { _tag: "Go" } : { _tag: "Wait", id: match[1] }
}
