/** The demo: an upstream registry and nodes on this machine, which pull one image after another. */
import * as OciLayoutWriter from "@spegel-ts/content/OciLayoutWriter"
import * as Reference from "@spegel-ts/oci/Reference"
import { decodeWith, type Given } from "@spegel-ts/spegel/cli/Given"
import * as GoInteger from "@spegel-ts/spegel/cli/GoInteger"
import * as HangUp from "@spegel-ts/spegel/daemon/HangUp"
import * as PullClient from "@spegel-ts/testing/content/PullClient"
import * as RandomImage from "@spegel-ts/testing/content/RandomImage"
import * as Lookup from "@spegel-ts/testing/node/Lookup"
import * as TemporaryDirectory from "@spegel-ts/testing/TemporaryDirectory"
import { Console, Effect, type Schema } from "effect"
import { Command, Flag } from "effect/cli"
import { join } from "node:path"
import * as ContainerdNodes from "./ContainerdNodes.ts"
import * as DemoCluster from "./DemoCluster.ts"
import * as DemoReport from "./DemoReport.ts"
import * as NodeFacts from "./NodeFacts.ts"

const number = (name: string, fallback: number, schema: Schema.Codec<number, string>, description: string) =>
  Flag.String(name).pipe(
    Flag.withMetavar("NUMBER"),
    Flag.withDescription(`${description} (default ${fallback})`),
    Flag.withDefault(String(fallback)),
    Flag.map((text): Given => ({ source: `--${name}`, text })),
    Flag.mapEffect(decodeWith(schema))
  )

const flags = {
  nodes: number("nodes", 3, GoInteger.between("a number of nodes", 2, 20), "Nodes to start"),
  layers: number("layers", 4, GoInteger.between("a number of layers", 1, 50), "Layers of the image"),
  layerSize: number("layer-size", 16, GoInteger.between("a size in MiB", 1, 1024), "Size of each layer in MiB"),
  containerd: Flag.Boolean("containerd").pipe(
    Flag.withDescription("Give each node a real containerd daemon (needs root and containerd)"),
    Flag.withDefault(false)
  ),
  keep: Flag.Boolean("keep").pipe(Flag.withDescription("Leave it running until Ctrl-C"), Flag.withDefault(false)),
  json: Flag.Boolean("json").pipe(
    Flag.withDescription("Print the totals as one JSON object on the last line"),
    Flag.withDefault(false)
  )
}

/** Rewrites the current line of a terminal; a pipe gets no bars. */
const showBar = (line: string) => {
  if (process.stdout.isTTY) process.stdout.write(`\r\u001b[2K${line}`)
}
const endBar = () => showBar("")

const pullEmbedded = Effect.fnUntraced(function*(
  node: DemoCluster.DemoNode,
  image: RandomImage.RandomImage,
  upstream: string
) {
  const writer = yield* OciLayoutWriter.make({ root: join(node.directory, "layout") })
  const written = new Map<string, number>()
  const started = performance.now()
  const objects = yield* PullClient.pull({
    writer,
    mirror: node.registry,
    upstream,
    reference: image.reference,
    tag: image.reference.tag ?? "latest",
    onProgress: ({ kind, written: bytes }) => {
      written.set(kind, bytes)
      const total = [...written.values()].reduce((sum, bytes) => sum + bytes, 0)
      showBar(DemoReport.bar(node.name, kind, total, image.bytes, performance.now() - started))
    }
  })
  endBar()
  const pulls = yield* NodeFacts.pulls(node.metrics)
  const peers = yield* NodeFacts.addressesOfPeers(node.metrics)
  const servedBy = ({ descriptor, host }: PullClient.PulledObject) => {
    if (host === "upstream") return "upstream"
    const source = pulls.find(({ content, method }) => method === "GET" && content === descriptor.digest)?.source ?? ""
    return `peer ${peers.get(source) ?? source}`
  }
  return objects.map((object): DemoReport.ReportRow => ({
    node: node.name,
    kind: object.kind,
    bytes: object.descriptor.size,
    servedBy: servedBy(object),
    refusals: object.refusals,
    millis: object.millis
  }))
})

/** containerd does not report its requests: the mirror's log of pulls has those it answered, and upstream answered the rest. */
const pullWithContainerd = Effect.fnUntraced(function*(
  daemons: ContainerdNodes.ContainerdNodes,
  node: DemoCluster.DemoNode,
  image: RandomImage.RandomImage,
  upstream: string
) {
  showBar(`${node.name}  containerd is pulling`)
  yield* daemons.pull(node, upstream, Reference.print(image.reference))
  endBar()
  const peers = yield* NodeFacts.addressesOfPeers(node.metrics)
  const pulls = yield* NodeFacts.pulls(node.metrics)
  return image.objects.map(({ descriptor, kind }): DemoReport.ReportRow => {
    const pull = pulls.find(({ content, method }) => method === "GET" && content === descriptor.digest)
    const fromPeer = pull !== undefined && pull.source !== "none"
    return {
      node: node.name,
      kind,
      bytes: descriptor.size,
      servedBy: fromPeer ? `peer ${peers.get(pull.source) ?? pull.source}` : "upstream",
      refusals: [],
      millis: fromPeer ? pull.millis : undefined
    }
  })
})

type DemoOptions = Command.Command.Config.Infer<typeof flags>

const run = Effect.fnUntraced(function*(options: DemoOptions) {
  yield* HangUp.interrupts
  if (options.containerd) yield* ContainerdNodes.check
  const daemons = ContainerdNodes.make()
  const directory = yield* TemporaryDirectory.withPrefix("spegel-demo-")
  const layout = join(directory, "upstream")
  yield* Console.log(`Starting an upstream registry and ${options.nodes} nodes ...`)
  const writer = yield* OciLayoutWriter.make({ root: layout })
  const upstream = yield* DemoCluster.startUpstream(layout)
  const image = yield* RandomImage.write({
    writer,
    // Under the upstream's own address, as containerd would be told to pull it.
    reference: { registry: new URL(upstream.url).host, repository: "demo/app", tag: "v1" },
    layerSizes: Array.from({ length: options.layers }, () => options.layerSize * 1024 * 1024)
  })
  const nodes = yield* DemoCluster.startNodes({
    count: options.nodes,
    directory,
    storeOf: (node) => options.containerd ? daemons.storeOf(node) : Effect.orDie(DemoCluster.layoutStore(node))
  })

  yield* Console.log(`Pulling ${Reference.print(image.reference)} on one node after the other\n`)
  const pull = (node: DemoCluster.DemoNode) =>
    options.containerd
      ? pullWithContainerd(daemons, node, image, upstream.url)
      : pullEmbedded(node, image, upstream.url)
  const rows: Array<DemoReport.ReportRow> = []
  let millis = 0
  for (const [index, node] of nodes.entries()) {
    const started = performance.now()
    const pulled = yield* pull(node)
    millis += performance.now() - started
    rows.push(...pulled)
    yield* Console.log(
      `${node.name} has it after ${(performance.now() - started).toFixed(0)} ms`
    )
    // Before the first pull no peer has the image.
    if (index > 0) yield* Effect.forEach(DemoReport.refusals(pulled), (line) => Console.log(line))
    const next = nodes[index + 1]
    // Advertising takes a moment, and pulls on different nodes of a cluster are further apart than here.
    if (next !== undefined) {
      yield* Lookup.untilFound(next.registry, image.reference, Lookup.pathsOf(image)).pipe(
        Effect.catch(() => Console.log(`${next.name} cannot find all of it at its peers yet; it pulls all the same`))
      )
    }
  }

  const upstreamBytes = yield* NodeFacts.bytesServed(upstream.metrics)
  const fromPeers = rows.filter(({ servedBy }) => servedBy !== "upstream")
  const summary: DemoReport.Summary = {
    imageBytes: image.bytes,
    nodes: nodes.length,
    upstreamBytes,
    peerBytes: fromPeers.reduce((sum, { bytes }) => sum + bytes, 0),
    seconds: millis / 1000
  }
  yield* Console.log(`\n${DemoReport.table(rows)}\n\n${DemoReport.sum(summary)}\n`)
  yield* Console.log(
    nodes.map(({ metrics, name }) => `${name}  ${metrics}/debug/web/  ${metrics}/metrics`).join("\n")
  )
  if (options.keep) yield* Console.log("\nRunning until Ctrl-C.")
  if (options.json) yield* Console.log(JSON.stringify(summary))
  if (options.keep) return yield* Effect.never
}, Effect.scoped)

export const demo = Command.make("demo", flags, run).pipe(
  Command.withDescription(
    "Show the mirror on this machine: three nodes pull an image, one from upstream and two from peers"
  )
)
