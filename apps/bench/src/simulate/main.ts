/**
 * `npm run simulate -- router` simulates the DHT's core in a network larger than a machine could run, `npm run simulate -- herd` many nodes
 * that want the same blob at once.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Console, Data, Effect, Option } from "effect"
import { Command, Flag } from "effect/cli"
import { json, svg } from "../Flags.ts"
import * as Plot from "../Plot.ts"
import { type HerdFigures, simulate as simulateHerd } from "./herd/simulate.ts"
import { simulate, type SimulationFigures } from "./simulate.ts"

const rows = (figures: SimulationFigures): ReadonlyArray<readonly [string, string]> => [
  ["lookups of keys with a live provider", String(figures.lookups)],
  ["that named it", `${(100 * figures.success).toFixed(3)} %`],
  ["hops, p50 / p99", `${figures.hops.p50} / ${figures.hops.p99}`],
  ["first provider, p50 / p99", `${figures.lookupMs.p50.toFixed(2)} / ${figures.lookupMs.p99.toFixed(2)} ms`],
  ["named providers that were gone", `${(100 * figures.stale).toFixed(3)} %`],
  ["messages a node and minute", figures.messagesPerNodeMinute.toFixed(0)],
  ["bytes a node and minute", figures.bytesPerNodeMinute.toFixed(0)],
  ["records a node", figures.recordsPerNode.toFixed(0)],
  ["members a node knows", figures.membersPerNode.toFixed(0)],
  ["connections a node has had", figures.connectionsPerNode.toFixed(0)],
  ["heap a node", `${figures.heapKiBPerNode.toFixed(0)} KiB`]
]

const plot = (figures: SimulationFigures): string =>
  Plot.bars(`${figures.nodes} nodes, ${100 * figures.churn} % churn a minute`, [
    { name: "first provider p50, ms", bars: [{ name: "spegel-ts", value: figures.lookupMs.p50 }] },
    { name: "first provider p99, ms", bars: [{ name: "spegel-ts", value: figures.lookupMs.p99 }] },
    { name: "messages a node and minute", bars: [{ name: "spegel-ts", value: figures.messagesPerNodeMinute }] },
    { name: "KiB a node and minute", bars: [{ name: "spegel-ts", value: figures.bytesPerNodeMinute / 1024 }] },
    { name: "records a node", bars: [{ name: "spegel-ts", value: figures.recordsPerNode }] },
    { name: "connections a node", bars: [{ name: "spegel-ts", value: figures.connectionsPerNode }] }
  ])

const router = Command.make("router", {
  nodes: Flag.Int("nodes").pipe(Flag.withDescription("Nodes of the network"), Flag.withDefault(300)),
  minutes: Flag.Int("minutes").pipe(Flag.withDescription("Simulated minutes with churn"), Flag.withDefault(2)),
  churnPercent: Flag.Int("churn-percent").pipe(
    Flag.withDescription("Nodes that leave, and others that come, in a minute"),
    Flag.withDefault(5)
  ),
  seed: Flag.Int("seed").pipe(Flag.withDescription("Of all that is random"), Flag.withDefault(1)),
  grown: Flag.Boolean("grown").pipe(
    Flag.withDescription("Begin with a network in which all know all, instead of growing it"),
    Flag.withDefault(false)
  ),
  svg,
  json
}, ({ churnPercent, grown, json, minutes, nodes, seed, svg }) =>
  Effect.gen(function*() {
    const figures = yield* Effect.promise(() => simulate({ churn: churnPercent / 100, grown, minutes, nodes, seed }))
    yield* Console.log(`${nodes} nodes, ${minutes} minutes with ${churnPercent} % churn a minute, seed ${seed}\n`)
    for (const [name, value] of rows(figures)) yield* Console.log(`${name.padEnd(38)}  ${value.padStart(18)}`)
    if (Option.isSome(svg)) yield* Effect.promise(() => Plot.write(svg.value, `simulate-${nodes}`, plot(figures)))
    if (json) yield* Console.log(JSON.stringify(figures))
  })).pipe(Command.withDescription("The DHT with latency, loss and churn, in one process"))

class HerdFailed extends Data.TaggedError("HerdFailed")<{ readonly seed: number }> {
  override get message() {
    return `a node was stuck, or waited too long, with seed ${this.seed}`
  }
}

/** Whatever happens, nobody waits longer for a byte. */
const longestGapSeconds = 15

const herd = Command.make(
  "herd",
  {
    nodes: Flag.Int("nodes").pipe(Flag.withDescription("Nodes that want the blob"), Flag.withDefault(1000)),
    fewest: Flag.Int("fewest").pipe(
      Flag.withDescription("Each run has between so many nodes and --nodes; 0: all have --nodes"),
      Flag.withDefault(0)
    ),
    size: Flag.Int("size").pipe(Flag.withDescription("Size of the blob in MiB"), Flag.withDefault(64)),
    upstream: Flag.Int("upstream").pipe(
      Flag.withDescription("Speed of the registry's link in MB/s"),
      Flag.withDefault(50)
    ),
    link: Flag.Int("link").pipe(Flag.withDescription("Speed of each node's link in MB/s"), Flag.withDefault(125)),
    spread: Flag.Int("spread").pipe(
      Flag.withDescription("Seconds over which the starts are spread"),
      Flag.withDefault(0)
    ),
    lossPercent: Flag.Int("loss-percent").pipe(Flag.withDescription("Messages that get lost"), Flag.withDefault(0)),
    stalePercent: Flag.Int("stale-percent").pipe(
      Flag.withDescription("Nodes that each does not know yet, and that all know though they are gone"),
      Flag.withDefault(0)
    ),
    faultPercent: Flag.Int("fault-percent").pipe(
      Flag.withDescription("Nodes to which something happens at a random time"),
      Flag.withDefault(0)
    ),
    fault: Flag.Literals("fault", ["none", "node gone", "mirror killed", "upstream stalls"]).pipe(
      Flag.withDescription("What happens to the first node that downloads, at 30 % of the blob"),
      Flag.withDefault("none")
    ),
    runs: Flag.Int("runs").pipe(Flag.withDescription("Runs with different seeds"), Flag.withDefault(1)),
    seed: Flag.Int("seed").pipe(Flag.withDescription("Of the first run"), Flag.withDefault(1)),
    json
  },
  ({ fault, faultPercent, fewest, json, link, lossPercent, nodes, runs, seed, size, spread, stalePercent, upstream }) =>
    Effect.gen(function*() {
      yield* Console.log(
        ["seed", "copies", "slowest", "gap s", "messages", "stuck", "cycles"].map((title) => title.padStart(10)).join(
          ""
        )
      )
      const all: Array<HerdFigures> = []
      for (let run = 0; run < runs; run++) {
        const figures = yield* Effect.promise(() =>
          simulateHerd({
            nodes: fewest === 0 ? nodes : fewest + (seed + run) % (nodes - fewest + 1),
            size: size * 1024 ** 2,
            upstream: upstream * 1e6,
            link: link * 1e6,
            firstByteMillis: 100,
            spread: spread * 1000,
            loss: lossPercent / 100,
            stale: stalePercent / 100,
            randomFaults: faultPercent / 100,
            fault,
            seed: seed + run
          })
        )
        all.push(figures)
        const { copies, cycles, longestGapSeconds, messagesPerNode, slowest, stuck } = figures
        const cells = [
          copies.toFixed(2),
          slowest.toFixed(2),
          longestGapSeconds.toFixed(1),
          messagesPerNode.toFixed(0),
          stuck,
          cycles
        ]
        if (runs <= 20) yield* Console.log([seed + run, ...cells].map((cell) => String(cell).padStart(10)).join(""))
      }
      const most = (of: (figures: HerdFigures) => number) => Math.max(...all.map(of))
      const cells = [
        most(({ copies }) => copies).toFixed(2),
        most(({ slowest }) => slowest).toFixed(2),
        most(({ longestGapSeconds }) => longestGapSeconds).toFixed(1),
        most(({ messagesPerNode }) => messagesPerNode).toFixed(0),
        most(({ stuck }) => stuck),
        most(({ cycles }) => cycles)
      ]
      yield* Console.log(["worst", ...cells].map((cell) => String(cell).padStart(10)).join(""))
      if (json) yield* Console.log(JSON.stringify(all))
      const failed = all.findIndex((figures) =>
        figures.stuck > 0 || figures.cycles > 0 || figures.longestGapSeconds > longestGapSeconds
      )
      if (failed >= 0) return yield* new HerdFailed({ seed: seed + failed })
    })
).pipe(Command.withDescription("Many nodes that want one blob, with the mirror's own leases and policy"))

Command.make("simulate").pipe(
  Command.withDescription("Simulations of spegel-ts"),
  Command.withSubcommands([router, herd]),
  Command.run({ version: "0.1.0" }),
  Effect.provide(NodeServices.layer),
  NodeRuntime.runMain
)
