/** Flags that several benchmarks have. */
import { Flag } from "effect/cli"

export const json = Flag.Boolean("json").pipe(
  Flag.withDescription("Print the figures as JSON at the end"),
  Flag.withDefault(false)
)

export const svg = Flag.String("svg").pipe(Flag.withDescription("Directory to write the plot into"), Flag.optional)
