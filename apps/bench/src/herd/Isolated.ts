/** Runs a measurement of many nodes with a network of its own, for the commands that have nodes as the herd does. */
import * as ContainerdPackages from "@spegel-ts/testing/containerd/ContainerdPackages"
import * as NetworkNamespace from "@spegel-ts/testing/network/NetworkNamespace"
import { Effect } from "effect"
import { Flag } from "effect/cli"
import { mkdirSync } from "node:fs"
import { resolve } from "node:path"

/** A flag for further flags of the mirrors. */
export const flag = Flag.String("flag").pipe(
  Flag.withDescription("A further flag of the mirrors; may be repeated"),
  Flag.atLeast(0)
)

/** A flag for where the mirrors' logs go; by default below `artifacts`. */
export const logs = (name: string, description = "Directory for the mirrors' logs") =>
  Flag.String("logs").pipe(Flag.withDescription(description), Flag.withDefault(`artifacts/${name}`))

export const nodes = (count: number) =>
  Flag.Int("nodes").pipe(Flag.withDescription("Nodes, each a containerd and a mirror"), Flag.withDefault(count))

/** `measure` gets the directory for logs, and gives the exit code of this process. */
export const run = Effect.fnUntraced(function*<E, R>(
  directory: string,
  measure: (logs: string) => Effect.Effect<number, E, R>
) {
  const logs = resolve(directory)
  mkdirSync(logs, { recursive: true })
  // There is no network to fetch them from in the isolated program.
  yield* Effect.forEach(ContainerdPackages.versions, ContainerdPackages.fetch)
  process.exitCode = yield* NetworkNamespace.isolated(measure(logs))
})
