/** The settings of all commands as tables for docs/configuration.md, from the definitions that the command line is made of. */
import { settings } from "@spegel-ts/spegel/cli/CommandLine"
import { environmentName, flagName, type Setting } from "@spegel-ts/spegel/cli/Setting"
import * as GeneratedTable from "./GeneratedTable.ts"

const row = ([key, { description, fallback, hasVariable, metavar }]: readonly [string, Setting<unknown>]) => {
  const flag = flagName(key)
  return [
    `\`--${flag}${metavar === undefined ? "" : `=${metavar}`}\``,
    hasVariable ? `\`${environmentName(flag)}\`` : "",
    fallback === "" ? "" : `\`${fallback}\``,
    description
  ]
}

type Row = readonly [key: string, setting: Setting<unknown>]

const table = (rows: ReadonlyArray<Row>) =>
  GeneratedTable.table(["flag", "environment variable", "default", "meaning"], rows.map(row))

/** The settings below a heading for each group, as `--help` has them; those of no group have none. */
const groups = (rows: ReadonlyArray<Row>) =>
  [...Map.groupBy(rows, ([, { group }]) => group)].map(([group, rows]) =>
    group === undefined ? table(rows) : [`### ${group}`, "", table(rows)].join("\n")
  )

/** A section for each command. */
export const render = (): string =>
  [...settings].map(([command, rows]) =>
    [
      `## ${command === "every command" ? "Every command" : `spegel ${command}`}`,
      ...groups(Object.entries(rows))
    ].join("\n\n")
  ).join("\n\n")
