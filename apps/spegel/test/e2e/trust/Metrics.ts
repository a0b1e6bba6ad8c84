/** Reads a node's metrics. */
import type * as Node from "@spegel-ts/testing/node/Node"
import { Effect } from "effect"

/** The sum of a metric's series that have these labels, each as `name="value"`. */
export const sum = (
  node: Pick<Node.Node, "metrics">,
  name: string,
  ...labels: ReadonlyArray<string>
): Effect.Effect<number> =>
  Effect.map(
    Effect.promise(() => fetch(`${node.metrics}/metrics`).then((response) => response.text())),
    (text) =>
      text.split("\n")
        .filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `))
        .filter((line) => labels.every((label) => line.includes(label)))
        .reduce((total, line) => total + Number(line.slice(line.lastIndexOf(" ") + 1)), 0)
  )
