/** Names in the documents that exist: flags and chart values. Metrics.integration.test.ts does it for metrics. */
import { assert, describe, it } from "@effect/vitest"
import * as ChartValues from "@spegel-ts/release/ChartValues"
import * as CommandLine from "@spegel-ts/spegel/cli/CommandLine"
import { flagName } from "@spegel-ts/spegel/cli/Setting"
import { globSync } from "node:fs"
import * as GoSpegelValues from "../GoSpegelValues.ts"
import * as Pages from "./Pages.ts"

const flagsOf = (command: string) =>
  Object.keys(CommandLine.settings.get(command) ?? assert.fail(`no command ${command}`)).map((key) =>
    `--${flagName(key)}`
  )

/** Flags of the project's other programs: benchmarks, faults, the demo. */
const ofTools = globSync("apps/*/{src,test}/**/*.ts", { cwd: Pages.repository }).flatMap((path) =>
  [...Pages.read(path).matchAll(/\bFlag\.\w+\(\s*"([a-z0-9-]+)"/g)].map(([, flag]) => `--${flag}`)
)

/** Flags that belong to other programs, and the program. */
const foreign: ReadonlyMap<string, string> = new Map([
  ["--help", "every command line"],
  ["--version", "every command line"],
  ["--completions", "every command line"],
  ["--set", "helm"],
  ["--timeout", "helm"],
  ["--hosts-dir", "ctr"],
  ["--registry-token", "skopeo"],
  ["--heap-growing-percent", "node"],
  ["--no-maglev", "node"],
  ["--trace-gc", "node"],
  ["--embedded-registry", "k3s"],
  // docs/guides/migration-from-spegel.md tells what stands in their place.
  ["--blob-speed", "Go Spegel"],
  ["--otel-enabled", "Go Spegel"],
  ["--otel-endpoint", "Go Spegel"],
  ["--otel-insecure", "Go Spegel"],
  ["--otel-sampler", "Go Spegel"],
  ["--otel-service-name", "Go Spegel"]
])

const known = new Set([...CommandLine.settings.keys()].flatMap(flagsOf).concat(ofTools, ...foreign.keys()))

/** Spans that begin with another program are that program's business. */
const otherProgram = /^(?:npm|npx|node|helm|kubectl|skopeo|crane|containerd|ctr|crictl|apt|apt-get|docker|git)\b/
const flagPattern = /(?<![\w-])--[a-z][a-z0-9-]*/g

const values = ChartValues.read(Pages.read("charts/spegel/values.yaml"))
const tops = new Set(values.map(({ key }) => key.split(".", 1)[0]))
/** What the chart takes although it does not describe it, because earlier charts of Go Spegel had it. */
const former = new Set(
  Object.entries(GoSpegelValues.former).flatMap(([top, below]) => Object.keys(below).map((key) => `${top}.${key}`))
)
const isValue = (path: string) =>
  former.has(path) ||
  values.some(({ fallback, key }) =>
    key === path || key.startsWith(`${path}.`) || (path.startsWith(`${key}.`) && fallback.startsWith("{"))
  )
/** Names of files look like values. */
const isFile = (path: string) => /\.(?:env|json|md|service|yaml)$/.test(path)

/** A value as documents write it: `service.registry.nodePort`, `peerAuth: require`, `a.b: {...}`. */
const valueOf = (span: string): string | undefined => {
  const [, path = "", assigned] = /^([a-z][A-Za-z0-9]*(?:\.[A-Za-z0-9]+)*)(:(?: .*)?)?$/.exec(span) ?? []
  const isPath = path.includes(".") || (assigned !== undefined && /[A-Z]/.test(path))
  return isPath && tops.has(path.split(".", 1)[0]) && !isFile(path) ? path : undefined
}

const commands = [...CommandLine.settings.keys()].filter((name) => name !== "every command")
/** A command line of spegel. Longer names first: `cleanup` begins others. */
const commandPattern = new RegExp(
  `\\bspegel (${commands.toSorted((one, other) => other.length - one.length).join("|")})\\b[^|;&\\n#]*`,
  "g"
)

describe("documents", () => {
  for (const page of Pages.forUsers) {
    it(`${page} names flags that exist`, () => {
      const named = Pages.codeSpans(page).filter((span) => !otherProgram.test(span)).flatMap((span) =>
        [...span.matchAll(flagPattern)].map(([flag]) => flag)
      )
      assert.deepStrictEqual(named.filter((flag) => !known.has(flag)), [])
    })

    it(`${page} gives commands of spegel flags that they have`, () => {
      const texts = [
        ...Pages.codeSpans(page),
        ...Pages.blocks(page).filter(({ language }) => language === "sh").map(({ text }) => text)
      ]
      for (const text of texts) {
        for (const [line, command = ""] of text.replaceAll(/\\\n\s*/g, " ").matchAll(commandPattern)) {
          const flags = [...line.matchAll(flagPattern)].map(([flag]) => flag)
          const has = new Set([...flagsOf(command), ...flagsOf("every command"), "--help"])
          assert.deepStrictEqual(flags.filter((flag) => !has.has(flag)), [], line)
        }
      }
    })

    // Attributes of spans have names of the same form.
    if (page === "docs/tracing.md") continue
    it(`${page} names chart values that exist`, () => {
      const named = Pages.codeSpans(page).flatMap((span) => valueOf(span) ?? [])
      const set = [...Pages.read(page).matchAll(/--set '?([\w.]+)=/g)].map(([, path = ""]) => path)
      assert.deepStrictEqual([...named, ...set].filter((path) => !isValue(path)), [])
    })
  }

  it("would be found out: the checks know what is not there", () => {
    assert.isFalse(known.has("--mirror-nonsense"))
    assert.isTrue(isValue("securityContext.runAsGroup"))
    assert.isFalse(isValue("spegel.nonsense"))
    assert.strictEqual(valueOf("spegel.nonsense: true"), "spegel.nonsense")
    assert.strictEqual(valueOf("peerAuth: require"), "peerAuth")
    assert.isUndefined(valueOf("spegel.yaml"))
    assert.isUndefined(valueOf("containerd"))
  })
})
