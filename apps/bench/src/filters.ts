/** The costs of RE2 for registry filters, compared with JavaScript's own engine, and what it saves. */
import * as NamePattern from "@spegel-ts/oci/NamePattern"
import { Console, Effect } from "effect"
import { Command } from "effect/cli"
import { spawnSync } from "node:child_process"

const names = ["ghcr.io/acme/app:v12", "docker.io/library/alpine:3.20", "registry.k8s.io/kube-apiserver:v1.34.0"]
const usual = [":latest$", String.raw`^docker\.io/`, String.raw`^docker\.io/([a-z0-9]+-?)+/debug$`]
const matches = 200_000

/** Nanoseconds of one match, once the engine is warm. */
const cost = (matchesName: (name: string) => boolean): number => {
  const run = () => {
    const started = performance.now()
    for (let turn = 0; turn < matches; turn++) matchesName(names[turn % names.length] ?? "")
    return (performance.now() - started) * 1e6 / matches
  }
  run()
  return run()
}

/** An expression that backtracks, and names on which it does. */
const backtracks = String.raw`^docker\.io/([a-z0-9]+-?)+:debug$`
const nameOf = (length: number) => `docker.io/${"a".repeat(length)}:debug!`
const millis = (matchesName: (name: string) => boolean, name: string) => {
  const started = performance.now()
  matchesName(name)
  return performance.now() - started
}

/** MiB that a process has after it has compiled an expression by an engine and matched with it. */
const resident = (engine: "RE2" | "RegExp"): number => {
  const program = `
    ${engine === "RE2" ? `const { RE2JS } = await import("re2js")` : ""}
    const compiled = ${engine === "RE2" ? `RE2JS.compile(":latest$")` : `/:latest$/`}
    for (let turn = 0; turn < 1000; turn++) compiled.test("docker.io/library/app:" + turn)
    gc()
    console.log(process.memoryUsage.rss() / 2 ** 20)`
  const { stdout } = spawnSync(process.execPath, ["--expose-gc", "--input-type=module", "--eval", program], {
    encoding: "utf8"
  })
  return Number(stdout)
}

export const filters = Command.make("filters", {}, () =>
  Effect.gen(function*() {
    yield* Console.log("One match, ns".padEnd(44) + "RE2".padStart(10) + "RegExp".padStart(10))
    for (const expression of usual) {
      const re2 = yield* NamePattern.compile(expression)
      const regExp = new RegExp(expression)
      const figures = [cost(re2.matches), cost((name) => regExp.test(name))].map((ns) => ns.toFixed(0).padStart(10))
      yield* Console.log(expression.padEnd(44) + figures.join(""))
    }
    yield* Console.log(`\n${backtracks}, ms`)
    const re2 = yield* NamePattern.compile(backtracks)
    const regExp = new RegExp(backtracks)
    for (const length of [16, 20, 24]) {
      const own = millis((name) => regExp.test(name), nameOf(length))
      yield* Console.log(`RegExp, ${length} letters`.padEnd(44) + own.toFixed(1).padStart(20))
    }
    for (const length of [24, 1000, 10_000]) {
      yield* Console.log(
        `RE2, ${length} letters`.padEnd(44) + millis(re2.matches, nameOf(length)).toFixed(1).padStart(10)
      )
    }
    yield* Console.log(
      "\nMemory of a process, MiB".padEnd(45) +
        [resident("RE2"), resident("RegExp")].map((mib) => mib.toFixed(1).padStart(10)).join("")
    )
  })).pipe(Command.withDescription("The costs of RE2 for registry filters, compared with JavaScript's own engine"))
