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

/** A section with a table for each command. */
export const render = (): string =>
  [...settings].map(([command, table]) =>
    [
      `## ${command === "every command" ? "Every command" : `spegel ${command}`}`,
      "",
      GeneratedTable.table(["flag", "environment variable", "default", "meaning"], Object.entries(table).map(row))
    ].join("\n")
  ).join("\n\n")
