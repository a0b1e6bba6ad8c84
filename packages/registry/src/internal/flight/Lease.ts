/**
 * The lease of a download from upstream, as nodes tell each other of it in the header `x-spegel-lease`.
 *
 * A request has `ask <id> <ids>`: the node with the first id wants to download content from upstream, and has asked the others for
 * their downloads in vain. The answer is `go`, or `wait <id>`: that node downloads it. `hold <id>` tells a node that may have to decide
 * later that another one has let this one download; the answer does not matter. `pass <id> <ids>` is a question that a node passes on to
 * the one which should decide, as far as it knows.
 */
import * as NodeIds from "../share/NodeIds.ts"

export const leaseHeader = "x-spegel-lease"

export interface Asked {
  /** The id of the node that asks. */
  readonly asker: string
  readonly verb: "ask" | "hold" | "pass"
  /** The ids of nodes that it has asked in vain. */
  readonly inVain: ReadonlyArray<string>
}

export type Decision =
  | { readonly _tag: "Go" }
  | { readonly _tag: "Wait"; readonly id: string }

export const maxInVain = 8
const askedForm = new RegExp(`^(ask|hold|pass) (${NodeIds.nodeId})(${NodeIds.upTo(maxInVain)})$`)
const decisionForm = new RegExp(`^(?:go|wait (${NodeIds.nodeId}))$`)

export const printAsked = ({ asker, inVain, verb }: Asked): string => [verb, asker, ...inVain].join(" ")

/** Undefined for anything else. */
export const parseAsked = (header: unknown): Asked | undefined => {
  const [, verb, asker, ids = ""] = typeof header === "string" ? askedForm.exec(header) ?? [] : []
  return asker === undefined ? undefined : { verb: verb as Asked["verb"], asker, inVain: NodeIds.of(ids) }
}

export const print = (decision: Decision): string => decision._tag === "Go" ? "go" : `wait ${decision.id}`

/** Undefined for anything else. */
export const parse = (header: string | undefined): Decision | undefined => {
  const match = decisionForm.exec(header ?? "")
  return match === null ? undefined : match[1] === undefined ? { _tag: "Go" } : { _tag: "Wait", id: match[1] }
}
