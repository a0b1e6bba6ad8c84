/** `npm run bench`: figures that anybody can reproduce, each with a yardstick from the same run. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Console, Effect, Option } from "effect"
import { Command, Flag } from "effect/cli"
import * as Bar from "./Bar.ts"
import { commands as bytes } from "./bytes/commands.ts"
import { commands as elections } from "./election.ts"
import { filters } from "./filters.ts"
import { json, svg } from "./Flags.ts"
import { herd } from "./herd/command.ts"
import * as Plot from "./Plot.ts"
import { partition, restarts, thirdLost, visibility } from "./router/faults.ts"
import { hostile } from "./router/hostile.ts"
import { type Figures, measure, type Plan } from "./router/measure.ts"
import { memory } from "./router/memory.ts"
import { newcomer } from "./router/newcomer.ts"
import { upkeep } from "./router/upkeep.ts"
import { schedules } from "./schedules/command.ts"
import { soak } from "./soak/command.ts"
import { state } from "./state/command.ts"
import { traces } from "./traces/command.ts"

const ours: Plan = {
  rounds: 3,
  lookups: 300,
  keysToProvide: 10_000,
  fillers: 4,
  keysPerSecondUnderLoad: 2000,
  joinLimitMillis: 120_000
}

/** The stock DHT needs 200 ms of CPU for a key: it gets fewer keys, and less time. */
const stock: Plan = {
  rounds: 1,
  lookups: 30,
  keysToProvide: 20,
  fillers: 1,
  keysPerSecondUnderLoad: 10,
  joinLimitMillis: 15_000
}

const row = (
  name: string,
  { concurrent10Ms, firstProviderMs, joinMs, missMs, provide, rssMiBPerNode, underLoadMs }: Figures
) =>
  [
    name.padEnd(10),
    ...[firstProviderMs, concurrent10Ms, missMs, underLoadMs].map(({ p50, p99 }) => `${p50} / ${p99}`.padStart(16)),
    String(joinMs ?? "-").padStart(8),
    `${provide.keys} in ${provide.wallMs} ms, ${provide.clusterCpuMsPerKey} ms`.padStart(32),
    `${rssMiBPerNode} MiB`.padStart(10)
  ].join("  ")

const plot = (figures: Figures, yardstick: Figures | undefined): string => {
  const group = (name: string, of: (figures: Figures) => number): Plot.Bars => ({
    name,
    bars: [
      { name: "spegel-ts", value: of(figures) },
      ...(yardstick === undefined ? [] : [{ name: "stock kad-dht", value: of(yardstick) }])
    ]
  })
  return Plot.bars(`${figures.nodes} nodes on one machine`, [
    group("first provider p50, ms", ({ firstProviderMs }) => firstProviderMs.p50),
    group("first provider p99, ms", ({ firstProviderMs }) => firstProviderMs.p99),
    group("ten at once p99, ms", ({ concurrent10Ms }) => concurrent10Ms.p99),
    group("nobody has it p99, ms", ({ missMs }) => missMs.p99),
    group("under load p99, ms", ({ underLoadMs }) => underLoadMs.p99),
    group("provide, CPU ms a key", ({ provide }) => provide.clusterCpuMsPerKey)
  ])
}

const router = Command.make("router", {
  nodes: Flag.Int("nodes").pipe(Flag.withDescription("Nodes of the cluster"), Flag.withDefault(30)),
  port: Flag.Int("port").pipe(Flag.withDescription("Port of all nodes"), Flag.withDefault(25_801)),
  withoutStock: Flag.Boolean("without-stock").pipe(
    Flag.withDescription("Leave the stock DHT out"),
    Flag.withDefault(false)
  ),
  svg,
  json
}, ({ json, nodes, port, svg, withoutStock }) =>
  Effect.gen(function*() {
    yield* Console.log(
      `${nodes} nodes, ${
        (ours.fillers + ours.rounds) * ours.keysToProvide
      } keys; ms as p50 / p99, medians of ${ours.rounds} rounds\n`
    )
    const head = [
      "",
      "first provider",
      "ten at once",
      "nobody has it",
      "under load",
      "join",
      "provide, CPU a key",
      "RSS a node"
    ]
    const widths = [10, 16, 16, 16, 16, 8, 32, 10]
    yield* Console.log(head.map((title, column) => title.padStart(widths[column] ?? 0)).join("  "))
    const figures = yield* Effect.promise(() => measure("spegel-ts", nodes, port, ours))
    yield* Console.log(row("spegel-ts", figures))
    const yardstick = withoutStock ? undefined : yield* Effect.promise(() => measure("stock", nodes, port + 1, stock))
    if (yardstick !== undefined) yield* Console.log(row("stock", yardstick))
    if (Option.isSome(svg)) {
      yield* Effect.promise(() => Plot.write(svg.value, `router-${nodes}`, plot(figures, yardstick)))
    }
    if (json) yield* Console.log(JSON.stringify({ ...figures, stock: yardstick ?? null }))
  })).pipe(Command.withDescription("Lookups, provide and join of a cluster on this machine"))

const faults = Command.make("router-faults", {
  nodes: Flag.Int("nodes").pipe(Flag.withDescription("Nodes of the cluster, a process each"), Flag.withDefault(30)),
  port: Flag.Int("port").pipe(Flag.withDescription("Port of all nodes"), Flag.withDefault(25_811)),
  json
}, ({ json, nodes, port }) =>
  Effect.gen(function*() {
    const scenarios = [
      () => visibility(nodes, port),
      () => newcomer(nodes, port + 5),
      () => thirdLost(nodes, port + 1, "SIGSTOP"),
      () => thirdLost(nodes, port + 2, "SIGKILL"),
      () => restarts(20, port + 3),
      () => partition(port + 4)
    ]
    const bars: Array<Bar.Bar> = []
    for (const scenario of scenarios) {
      const measured = yield* Effect.promise(scenario)
      yield* Bar.printAll(measured)
      bars.push(...measured)
    }
    if (json) yield* Console.log(JSON.stringify({ nodes, bars }))
  })).pipe(
    Command.withDescription("Nodes that come, go, freeze, restart and lose each other, against the router's bars")
  )

const underAttack = Command.make("router-hostile", {
  port: Flag.Int("port").pipe(Flag.withDescription("Port of all nodes"), Flag.withDefault(25_821))
}, ({ port }) =>
  Effect.gen(function*() {
    const { assaults, bars } = yield* Effect.promise(() => hostile(port))
    for (const { attack, p99Millis, rssMiB } of assaults) {
      yield* Console.log(
        `${attack.padEnd(66)}  p99 ${p99Millis.toFixed(1).padStart(6)} ms  ${rssMiB.toFixed(1).padStart(6)} MiB`
      )
    }
    yield* Bar.printAll(bars)
  })).pipe(Command.withDescription("What an honest peer notices while others break the rules"))

const routerMemory = Command.make("router-memory", {
  port: Flag.Int("port").pipe(Flag.withDescription("First of three ports"), Flag.withDefault(25_831))
}, ({ port }) =>
  Effect.gen(function*() {
    const bars = yield* Effect.promise(() => memory(port))
    yield* Bar.printAll(bars)
  })).pipe(Command.withDescription("Memory of a bundled daemon with 30 peers and 20,000 records"))

const routerUpkeep = Command.make("router-upkeep", {
  nodes: Flag.Int("nodes").pipe(Flag.withDescription("Nodes of the cluster"), Flag.withDefault(100)),
  port: Flag.Int("port").pipe(Flag.withDescription("Port of all nodes"), Flag.withDefault(25_841))
}, ({ nodes, port }) =>
  Effect.gen(function*() {
    const bars = yield* Effect.promise(() => upkeep(nodes, port))
    yield* Bar.printAll(bars)
  })).pipe(Command.withDescription("What it costs to provide a few keys, and to keep many provided"))

Command.make("bench").pipe(
  Command.withDescription("Benchmarks of spegel-ts"),
  Command.withSubcommands([
    router,
    faults,
    underAttack,
    routerMemory,
    routerUpkeep,
    ...elections,
    filters,
    herd,
    ...bytes,
    schedules,
    soak,
    state,
    traces
  ]),
  Command.run({ version: "0.1.0" }),
  Effect.provide(NodeServices.layer),
  NodeRuntime.runMain
)
