/** `npm run bench -- herd`. */
import { Console, Effect, Option } from "effect"
import { Command, Flag } from "effect/cli"
import { json, svg } from "../Flags.ts"
import * as Plot from "../Plot.ts"
import * as Fault from "./Fault.ts"
import * as Herd from "./herd.ts"
import * as Isolated from "./Isolated.ts"

const number = (name: string, description: string, fallback: number) =>
  Flag.Int(name).pipe(Flag.withDescription(description), Flag.withDefault(fallback))

const modes = ["off", "share", "single-flight"] as const
const faults = [...Fault.names, "no credentials"] as const

const flags = {
  nodes: Isolated.nodes(8),
  layers: number("layers", "Layers of the image", 4),
  layerSize: number("layer-size", "Size of each layer in MiB", 32),
  upstreamSpeed: number("upstream-speed", "Speed of the registry's link in KB/s", 10_000),
  linkSpeed: number("link-speed", "Speed of each node's link in KB/s, in each direction", 25_000),
  firstByte: number("first-byte", "Milliseconds until the registry sends the first byte of a blob", 0),
  mode: Flag.Literals("mode", modes).pipe(
    Flag.withDescription("--in-progress of the mirrors; may be repeated. Default: all"),
    Flag.atLeast(0)
  ),
  spread: Flag.Int("spread").pipe(
    Flag.withDescription("Seconds over which the starts are spread; may be repeated. Default: 0, 2 and 30"),
    Flag.atLeast(0)
  ),
  fault: Flag.Literals("fault", [...faults, "all"]).pipe(
    Flag.withDescription("A fault of the node that downloads, or of the registry; may be repeated. Default: none"),
    Flag.atLeast(0)
  ),
  withoutControl: Flag.Boolean("without-control").pipe(
    Flag.withDescription("Leave out the pulls of one node, and of all from one that has the image"),
    Flag.withDefault(false)
  ),
  flag: Isolated.flag,
  logs: Isolated.logs("herd"),
  svg,
  json
}

const columns = ["copies", "manifests", "slowest s", "last s", "gap s", "failed"]
const head = "mode".padEnd(14) + "spread s, or fault".padStart(20) + columns.map((title) => title.padStart(10)).join("")

const line = (mode: string, result: Herd.Result) =>
  mode.padEnd(14) + String(result.scenario).padStart(20) + [
    result.copies.toFixed(2),
    String(result.manifestGets),
    Math.max(...result.seconds).toFixed(1),
    result.lastSeconds.toFixed(1),
    result.longestGap.toFixed(1),
    String(result.failed)
  ].map((cell) => cell.padStart(10)).join("")

interface Measured {
  readonly mode: string
  readonly result: Herd.Result
}

const gigabyte = 1e9

/** Bytes over time: from upstream, and from peers. */
const plotOf = (results: ReadonlyArray<Measured>): string =>
  Plot.lines(
    "GB received by all nodes over seconds",
    results.map(({ mode, result: { samples, scenario } }) => ({
      name: `${mode}, ${String(scenario)}`,
      lines: [
        {
          name: "from upstream",
          points: samples.map(({ seconds, upstream }) => [seconds, upstream / gigabyte] as const)
        },
        { name: "in all", points: samples.map(({ received, seconds }) => [seconds, received / gigabyte] as const) }
      ]
    }))
  )

type Options = Command.Command.Config.Infer<typeof flags>

const measure = Effect.fnUntraced(
  function*({ fault, flag, json, mode, spread, svg, withoutControl, ...plan }: Options) {
    const nodes = yield* Herd.make({ ...plan, flags: flag })
    const results: Array<Measured> = []
    /** Runs on mirrors that are new. */
    const runAll = (mode: string, scenarios: ReadonlyArray<Herd.Scenario>) =>
      Effect.scoped(Effect.gen(function*() {
        const mirrors = yield* Herd.startMirrors(nodes, mode)
        // The nodes have to meet.
        yield* Effect.sleep("5 seconds")
        for (const scenario of scenarios) {
          const result = yield* Herd.run(nodes, scenario, mirrors)
          results.push({ mode, result })
          yield* Console.log(line(mode, result))
        }
      }))
    const spreads = spread.length > 0 ? spread : fault.length > 0 ? [] : [0, 2, 30]
    const struck = fault.includes("all") ? faults : fault.filter((one) => one !== "all")
    yield* Console.log(head)
    if (!withoutControl) yield* runAll("off", ["alone", "control"])
    for (const each of mode.length > 0 ? mode : modes) {
      if (spreads.length > 0) yield* runAll(each, spreads)
      for (const scenario of struck) {
        yield* runAll(each, [scenario])
        yield* Herd.repair(nodes)
      }
    }
    if (Option.isSome(svg)) yield* Effect.promise(() => Plot.write(svg.value, "herd", plotOf(results)))
    if (json) yield* Console.log(JSON.stringify(results))
    return results.some(({ result }) => result.failed > 0) ? 1 : 0
  }
)

export const herd = Command.make(
  "herd",
  flags,
  (options) => Isolated.run(options.logs, (logs) => Effect.scoped(measure({ ...options, logs })))
).pipe(Command.withDescription("Many nodes pull a new image at once: bytes from upstream, and times"))
