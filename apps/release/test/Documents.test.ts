import { assert, describe, it } from "@effect/vitest"
import * as Documents from "@spegel-ts/release/Documents"
import * as CommandLine from "@spegel-ts/spegel/cli/CommandLine"
import { environmentName } from "@spegel-ts/spegel/cli/Setting"
import * as InProcess from "@spegel-ts/testing/node/InProcess"
import { Effect } from "effect"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("../../..", import.meta.url))

/** Flags that Effect's command line has for every program. */
const builtIn = new Set(["--help", "--version", "--completions"])

describe("the documents", () => {
  it.effect("have the tables of flags and of chart values that `npm run docs` writes", () =>
    Documents.update({ root, check: true }))

  it.effect("have every flag and variable of --help", () =>
    Effect.gen(function*() {
      const document = readFileSync(join(root, "docs/configuration.md"), "utf8")
      const commands = [...CommandLine.settings.keys()].filter((name) => name !== "every command")
      for (const command of commands) {
        const { stdout } = yield* InProcess.run([...command.split(" "), "--help"])
        const flags = [...stdout.matchAll(/^ {2}(--[a-z-]+)/gm)].map(([, flag = ""]) => flag)
        assert.isNotEmpty(flags)
        for (const flag of flags.filter((flag) => !builtIn.has(flag))) {
          assert.match(document, new RegExp(`^\\| \`${flag}[=\`]`, "m"), command)
          if (!/^--(?:remove|format|output)$/.test(flag)) {
            assert.include(document, `\`${environmentName(flag.slice(2))}\``)
          }
        }
      }
      const subcommands = (yield* InProcess.run(["--help"])).stdout.split("SUBCOMMANDS")[1]?.split("\n\n")[0] ?? ""
      for (const [, name = ""] of subcommands.matchAll(/^ {2}([a-z-]+) /gm)) {
        assert.include(
          commands.map((command) => command.split(" ", 1)[0]),
          name
        )
      }
    }))
})
