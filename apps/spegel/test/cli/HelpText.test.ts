import { assert, describe, it } from "@effect/vitest"
import * as CommandLine from "@spegel-ts/spegel/cli/CommandLine"
import * as HelpText from "@spegel-ts/spegel/cli/report/HelpText"
import * as InProcess from "@spegel-ts/testing/node/InProcess"
import { Effect } from "effect"

const commands = [...CommandLine.settings.keys()].filter((name) => name !== "every command")
const help = (command: string, columns = "") =>
  Effect.map(InProcess.run([...command.split(" "), "--help"], { COLUMNS: columns }), ({ stdout }) => stdout)

/** The lines below a heading. */
const below = (text: string, heading: string): ReadonlyArray<string> =>
  text.split("\n\n").flatMap((section, index, sections) => {
    if (!section.startsWith(`${heading}\n`)) return []
    const end = sections.findIndex((other, at) => at > index && !other.startsWith(" "))
    return sections.slice(index, end === -1 ? undefined : end).join("\n\n").split("\n").slice(1)
  })

describe("--help", () => {
  it.effect("names the commands, and says what each is for", () =>
    Effect.gen(function*() {
      const { code, stdout } = yield* InProcess.run(["--help"])
      assert.strictEqual(code, 0)
      const named = below(stdout, "SUBCOMMANDS").flatMap((line) => /^ {2}([a-z-]+) +\S/.exec(line)?.[1] ?? [])
      assert.sameMembers(named, [...new Set(commands.map((command) => command.split(" ", 1)[0] ?? command))])
    }))

  it.effect("fits the terminal, and 80 columns where there is none", () =>
    Effect.gen(function*() {
      for (const command of commands) {
        for (const [columns, width] of [["", 80], ["60", 60], ["132", 132], ["nonsense", 80]] as const) {
          const lines = (yield* help(command, columns)).split("\n")
          // A word that is longer than the line stands alone.
          const isLong = (line: string) => line.length > width && /\S\s+\S/.test(line.replace(/ \\$/, "").trim())
          assert.deepStrictEqual(
            lines.filter((line) => isLong(line) && !/^ {2}--/.test(line)),
            [],
            `${command} ${columns}`
          )
        }
      }
      const [narrow, wide] = yield* Effect.all([help("registry", "60"), help("registry", "132")])
      assert.isBelow(wide.split("\n").length, narrow.split("\n").length)
    }))

  it.effect("groups the flags of the mirror", () =>
    Effect.gen(function*() {
      const text = yield* help("registry")
      const groups: ReadonlyArray<readonly [heading: string, flag: string]> = [
        ["REGISTRY", "--registry-addr"],
        ["CONTENT STORE", "--containerd-sock"],
        ["IMAGES", "--registry-filters"],
        ["MIRROR POLICY", "--mirror-resolve-timeout"],
        ["PEERS AND ROUTING", "--router-addr"],
        ["FIRST PEERS", "--bootstrap-kind"],
        ["TRUST", "--cluster-key-file"],
        ["KUBERNETES", "--node-readiness-taint"],
        ["OBSERVABILITY", "--metrics-addr"],
        ["EVERY COMMAND", "--log-level"]
      ]
      for (const [heading, flag] of groups) {
        assert.isTrue(below(text, heading).some((line) => line.startsWith(`  ${flag} `)), `${heading} ${flag}`)
      }
      assert.notInclude(text, "FLAGS\n", "every flag is in a group")
      const entry = text.replaceAll(/\s+/g, " ")
      assert.include(entry, "--mirror-resolve-timeout DURATION How long to look for a peer")
      assert.include(entry, "(env MIRROR_RESOLVE_TIMEOUT, default 20ms)")
    }))

  it.effect("has examples for each command, with flags that it has", () =>
    Effect.gen(function*() {
      for (const command of commands) {
        const text = yield* help(command)
        const examples = below(text, "EXAMPLES").join("\n").replaceAll(/ \\\n +/g, " ").split("\n").filter((line) =>
          line.startsWith("  spegel ")
        )
        assert.isNotEmpty(examples, command)
        for (const example of examples) {
          assert.match(example, new RegExp(`^ {2}spegel ${command}(?: |$)`))
          for (const [, flag = ""] of example.matchAll(/ (--[a-z-]+)/g)) {
            assert.match(text, new RegExp(`^ {2}${flag}(?: |$)`, "m"), example)
          }
        }
      }
    }))

  it("takes the width that the user chose, then the terminal's", () => {
    assert.strictEqual(HelpText.columnsOf("100", 120), 100)
    assert.strictEqual(HelpText.columnsOf(undefined, 120), 120)
    assert.strictEqual(HelpText.columnsOf("", undefined), 80)
    assert.strictEqual(HelpText.columnsOf("0", undefined), 80)
    assert.strictEqual(HelpText.columnsOf("1", undefined), 40)
  })

  it("wraps at spaces, and loses no word", () => {
    assert.deepStrictEqual(HelpText.wrap("one  two three", 10, "  "), ["  one two", "  three"])
    assert.deepStrictEqual(HelpText.wrap("a muchtoolongword b", 8, ""), ["a", "muchtoolongword", "b"])
    assert.deepStrictEqual(HelpText.wrap("", 8, ""), [""])
  })
})

describe("the exit code", () => {
  it.effect("is 2 for a command line that is wrong, 1 for what went wrong later, 0 otherwise", () =>
    Effect.gen(function*() {
      const cases: ReadonlyArray<
        readonly [code: number, args: ReadonlyArray<string>, variables?: Record<string, string>]
      > = [
        [0, ["version"]],
        [0, ["registry", "--help"]],
        [0, ["--version"]],
        [2, []],
        [2, ["cluster-key"]],
        [2, ["nonsense"]],
        [2, ["version", "operand"]],
        [2, ["version", "--nonsense"]],
        [2, ["version", "--format=yaml"]],
        [2, ["registry", "--registry-addr"]],
        [2, ["registry"], { REGISTRY_ADDR: "nonsense" }],
        [2, ["registry", "--log-level=loud"]],
        [2, ["configuration"]],
        [2, ["probe"]],
        [2, ["cleanup-wait"]],
        [2, ["registry", "--record-refresh=10m"]],
        [1, ["cluster-key", "generate", "--output=/no/such/directory/key"]],
        [1, ["registry", "--store=oci-layout:/no/such/directory", "--bootstrap-kind=static"]]
      ]
      for (const [code, args, variables] of cases) {
        assert.strictEqual((yield* InProcess.run(args, variables)).code, code, args.join(" "))
      }
    }))
})
