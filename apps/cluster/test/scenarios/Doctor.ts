/** `spegel doctor` in the pod of each node, as an operator runs it. */
import type { Check } from "@spegel-ts/spegel/doctor/Check"
import { Effect } from "effect"
import type { Installation } from "../Installation.ts"
import * as Steps from "../Steps.ts"

/**
 * What a pod of the chart cannot see: configuration that containerd 2.x does not report, and `hosts.toml` files with a token, which only
 * root can read.
 */
const unseen = new Set(["config-path", "pull-mode", "hosts-toml"])

/** A cluster whose nodes are good: the pull proves it, and nothing else is said but what cannot be seen. */
export const provesEveryNode = Effect.fnUntraced(function*({ inNamespace, nodes, podOn }: Installation) {
  for (const node of nodes) {
    const pod = yield* podOn(node)
    const printed = yield* inNamespace("exec", pod, "--", "/nodejs/bin/node", "/app/main.js", "doctor", "--output=json")
    const { checks, result }: { readonly checks: ReadonlyArray<Check>; readonly result: string } = JSON.parse(printed)
    const odd = checks.filter(({ name, verdict }) => verdict !== "ok" && !(verdict === "skipped" && unseen.has(name)))
    yield* Steps.promise(result === "proved" && odd.length === 0, `${node.nodeName}: ${result}: ${JSON.stringify(odd)}`)
  }
  return `${nodes.length} nodes`
})
