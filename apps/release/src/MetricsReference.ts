/** The metrics as a table for docs/metrics.md, from what a mirror tells of them. */
import type { Family } from "@spegel-ts/testing/telemetry/Exposition"
import * as GeneratedTable from "./GeneratedTable.ts"

export const render = (families: ReadonlyArray<Family>): string =>
  GeneratedTable.table(
    ["metric", "type", "labels", "meaning"],
    families.map(({ help, labels, name, type }) => [
      `\`${name}\``,
      type,
      labels.map((label) => `\`${label}\``).join(", "),
      help
    ])
  )
