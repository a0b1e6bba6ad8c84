/** The demo: an upstream registry and nodes on this machine, which pull images from each other, also when things go wrong. */
import { decodeWith, type Given } from "@spegel-ts/spegel/cli/Given"
import * as GoInteger from "@spegel-ts/spegel/cli/GoInteger"
import * as HangUp from "@spegel-ts/spegel/daemon/HangUp"
import { freePort } from "@spegel-ts/testing/network/FreePort"
import * as LayoutRegistry from "@spegel-ts/testing/registry/LayoutRegistry"
import * as TemporaryDirectory from "@spegel-ts/testing/TemporaryDirectory"
import { Console, Effect, Option, type Schema } from "effect"
import { Command, Flag } from "effect/cli"
import { join } from "node:path"
import * as FlippedByte from "./acts/FlippedByte.ts"
import * as KilledPeer from "./acts/KilledPeer.ts"
import * as Pulls from "./acts/Pulls.ts"
import * as Bar from "./Bar.ts"
import * as DemoCluster from "./DemoCluster.ts"
import * as Report from "./Report.ts"
import * as Screen from "./Screen.ts"
import type { Stage } from "./Stage.ts"
import * as Units from "./Units.ts"

const number = (name: string, fallback: number, schema: Schema.Codec<number, string>, description: string) =>
  Flag.String(name).pipe(
    Flag.withMetavar("NUMBER"),
    Flag.withDescription(`${description} (default ${fallback})`),
    Flag.withDefault(String(fallback)),
    Flag.map((text): Given => ({ source: `--${name}`, text })),
    Flag.mapEffect(decodeWith(schema))
  )

const flags = {
  nodes: number("nodes", 3, GoInteger.between("a number of nodes", 3, 20), "Nodes to start"),
  layers: number("layers", 3, GoInteger.between("a number of layers", 1, 50), "Layers of the image"),
  layerSize: number("layer-size", 8, GoInteger.between("a size in MiB", 1, 1024), "Size of each layer in MiB"),
  upstreamBandwidth: number(
    "upstream-bandwidth",
    100,
    GoInteger.between("a bandwidth in Mbit/s", 0, 100_000),
    "Speed of the upstream registry in Mbit/s, for all its connections together; 0: not shaped"
  ),
  upstreamLatency: number(
    "upstream-latency",
    30,
    GoInteger.between("a time in ms", 0, 5000),
    "Milliseconds before each answer of the upstream registry; 0: not shaped"
  ),
  keep: Flag.Boolean("keep").pipe(
    Flag.withDescription("Leave the nodes and their debug pages running until Ctrl-C"),
    Flag.withDefault(false)
  ),
  json: Flag.Boolean("json").pipe(
    Flag.withDescription("Print nothing but one JSON object with all figures, on one line"),
    Flag.withDefault(false)
  )
}

type DemoOptions = Command.Command.Config.Infer<typeof flags>

const mebibyte = 1024 * 1024

const shapeOf = ({ latencyMillis, megabits }: Units.Link): LayoutRegistry.Shape => ({
  ...(megabits > 0 ? { bytesPerSecond: (megabits * 1e6) / 8 } : {}),
  ...(latencyMillis > 0 ? { latencyMillis } : {})
})

/** Starts everything, with a line for each node. */
const setUp = Effect.fnUntraced(function*(options: DemoOptions, link: Units.Link, screen: Screen.Screen) {
  const directory = yield* TemporaryDirectory.withPrefix("spegel-demo-")
  const startUpstream = Effect.flatMap(freePort, (port) =>
    LayoutRegistry.start({
      address: "127.0.0.100",
      port,
      layout: join(directory, "upstream"),
      shape: shapeOf(link)
    }))
  const begun = performance.now()
  const [upstream, nodes] = yield* Effect.all([
    startUpstream,
    DemoCluster.start({
      count: options.nodes,
      directory,
      onReady: ({ name, registry }, millis) => screen.say(`${name}  ready after ${Units.seconds(millis)}  ${registry}`)
    })
  ], { concurrency: "unbounded" })
  const startMillis = performance.now() - begun
  const [one, two, three, ...others] = nodes
  if (one === undefined || two === undefined || three === undefined) {
    return yield* Effect.die(new Error(`${nodes.length} nodes`))
  }
  return { stage: { upstream, nodes: [one, two, three, ...others], screen } satisfies Stage, startMillis }
})

type Image = Effect.Success<ReturnType<LayoutRegistry.LayoutRegistry["push"]>>

const compare = Effect.fnUntraced(function*(stage: Stage, image: Image, isShown: boolean) {
  const { say } = stage.screen
  if (isShown) yield* say("\nWithout the mirror, one node after another")
  const without = yield* Pulls.run(stage, { image, through: "none", order: "one after another", isShown })
  if (isShown) yield* say("\nWith the mirror, one node after another")
  const through = yield* Pulls.run(stage, { image, through: "mirror", order: "one after another", isShown })
  return { without, with: through } satisfies Report.Comparison
})

const flipped = Effect.fnUntraced(function*(stage: Stage, killed: string, seed: number) {
  const [one, two, node] = stage.nodes
  const holder = one.name === killed ? two : one
  yield* stage.screen.say("\nA peer with a wrong byte")
  return yield* Effect.forEach(
    FlippedByte.sizes,
    (layerBytes, index) =>
      FlippedByte.run(stage, { node, holder, layerBytes, seed: seed + index }).pipe(
        Effect.tap((act) => stage.screen.say(Report.flippedByte(act)))
      )
  )
})

const run = Effect.fnUntraced(function*(options: DemoOptions) {
  yield* HangUp.interrupts
  const begun = performance.now()
  const terminal = Screen.options(options.json)
  const screen = Screen.make(terminal)
  const { say } = screen
  const link = { megabits: options.upstreamBandwidth, latencyMillis: options.upstreamLatency }
  yield* say(`Upstream: a registry on this machine, ${Units.link(link)} (--upstream-bandwidth, --upstream-latency)`)
  const { stage, startMillis } = yield* setUp(options, link, screen)
  const layerSizes = Array.from({ length: options.layers }, () => options.layerSize * mebibyte)
  const newImage = (seed: number) => stage.upstream.push(seed, layerSizes)

  const image = yield* newImage(1)
  yield* say(`\nAn image of ${Units.mebi(image.bytes)}: ${Bar.legend(terminal.isColoured)}`)
  const shaped = yield* compare(stage, image, true)
  const unshaped = Units.isShaped(link)
    ? yield* stage.upstream.reshape({}).pipe(
      Effect.andThen(newImage(2)),
      Effect.flatMap((another) => compare(stage, another, false)),
      Effect.tap(() => stage.upstream.reshape(shapeOf(link)))
    )
    : undefined
  yield* say(`\n${Report.sums(shaped, link, unshaped)}`)

  yield* say("\nA new image, all nodes at once")
  const herdImage = yield* newImage(3)
  const atOnce = yield* Pulls.run(stage, { image: herdImage, through: "mirror", order: "at once", isShown: true })
  yield* say(Report.atOnce(atOnce, herdImage.bytes, stage.nodes.length))

  yield* say("\nA peer that is killed in the middle of a layer")
  const killedPeer = yield* KilledPeer.run(stage, 4)
  yield* say(Option.match(killedPeer, {
    onNone: () => "The layer came before the peer could be killed: this machine is too busy to show it.",
    onSome: Report.killedPeer
  }))
  const killed = Option.match(killedPeer, { onNone: () => "", onSome: (act) => act.killed })
  const flippedByte = yield* flipped(stage, killed, 5)

  const seconds = (performance.now() - begun) / 1000
  yield* say(`\nAll of it took ${seconds.toFixed(1)} s.`)
  if (options.json) {
    yield* Console.log(JSON.stringify({
      nodes: options.nodes,
      upstream: link,
      imageBytes: image.bytes,
      startMillis,
      shaped,
      unshaped: unshaped ?? null,
      clientMegabytesPerSecond: unshaped === undefined ? null : Report.clientSpeed(unshaped),
      atOnce,
      killedPeer: Option.getOrNull(killedPeer),
      flippedByte,
      seconds
    }))
  }
  if (!options.keep) return
  const pages = stage.nodes.filter(({ name }) => name !== killed)
  yield* say(`\n${pages.map(({ metrics, name }) => `${name}  ${metrics}/debug/web/`).join("\n")}`)
  yield* say("Running until Ctrl-C.")
  return yield* Effect.never
}, Effect.scoped)

export const demo = Command.make("demo", flags, run).pipe(
  Command.withDescription(
    "Show the mirror on this machine: what it saves, and what it does when peers die, lie or all want the same at once"
  )
)
