/**
 * `npm run test:cluster`: the chart and the image as a user installs them, on a real Kubernetes of three nodes with
 * containerd 1.6, 1.7 and 2.1. Needs root; the first run builds Kubernetes.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as NetworkNamespace from "@spegel-ts/testing/network/NetworkNamespace"
import { Console, Effect, Option } from "effect"
import { Command, Flag } from "effect/cli"
import { mkdir, writeFile } from "node:fs/promises"
import { join, resolve } from "node:path"
import * as Addresses from "./Addresses.ts"
import * as Cluster from "./Cluster.ts"
import * as Programs from "./Programs.ts"
import * as Scenarios from "./Scenarios.ts"
import * as Steps from "./Steps.ts"

const flags = {
  smoke: Flag.Boolean("smoke").pipe(
    Flag.withDescription("Install, pull, restart and uninstall only"),
    Flag.withDefault(false)
  ),
  only: Flag.String("only").pipe(
    Flag.withDescription("Only scenarios with one of these in their name, separated by |"),
    Flag.withDefault("")
  ),
  ipv6: Flag.Boolean("ipv6").pipe(
    Flag.withDescription("A cluster that has IPv6 only"),
    Flag.withDefault(false)
  ),
  image: Flag.String("image").pipe(
    Flag.withDescription("The image as an OCI archive (npm run image)"),
    Flag.withDefault("dist-image.tar")
  ),
  imageBefore: Flag.String("image-before").pipe(
    Flag.withDescription("The image of the release before, for the upgrade from its chart; empty for the same image"),
    Flag.withDefault("")
  ),
  chart: Flag.String("chart").pipe(Flag.withDescription("The chart"), Flag.withDefault("charts/spegel")),
  out: Flag.String("out").pipe(
    Flag.withDescription("Directory for the table (cluster.md) and its data (cluster.json)"),
    Flag.optional
  )
}

const measure = Effect.fnUntraced(function*(options: Command.Command.Config.Infer<typeof flags>) {
  const { out } = options
  const cluster = yield* Cluster.start({
    addresses: options.ipv6 ? Addresses.ipv6 : Addresses.ipv4,
    upstreamBytesPerSecond: 20e6
  })
  const rows = yield* Scenarios.run(cluster, options)
  const table = Steps.table(rows)
  yield* Console.log(`\n${table}`)
  if (Option.isSome(out)) {
    const directory = out.value
    yield* Effect.promise(async () => {
      await mkdir(directory, { recursive: true })
      await writeFile(join(directory, "cluster.md"), table)
      await writeFile(join(directory, "cluster.json"), JSON.stringify(rows, null, 2))
    })
  }
  const failed = rows.filter(({ passed }) => !passed).length
  yield* Console.log(`${rows.length - failed} of ${rows.length} steps`)
  return failed === 0 ? 0 : 1
}, Effect.scoped)

const command = Command.make("cluster", flags, (options) =>
  Effect.gen(function*() {
    // Outside of the namespaces, where Go's and Debian's packages can be had.
    yield* Programs.provide
    const paths = {
      chart: resolve(options.chart),
      image: resolve(options.image),
      imageBefore: resolve(options.imageBefore || options.image),
      out: Option.map(options.out, (path) => resolve(path))
    }
    process.exitCode = yield* NetworkNamespace.isolated(measure({ ...options, ...paths }))
  })).pipe(Command.withDescription("The chart on a real Kubernetes of three nodes"))

command.pipe(
  Command.run({ version: "0.1.0" }),
  Effect.provide(NodeServices.layer),
  NodeRuntime.runMain
)
