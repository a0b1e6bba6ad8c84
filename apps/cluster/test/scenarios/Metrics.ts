/** Makes every event of the dashboard and the alerts happen, and checks that they show it. */
import { Effect } from "effect"
import type { Node } from "../Cluster.ts"
import type { Installation } from "../Installation.ts"
import * as Pods from "../Pods.ts"
import * as Upstream from "../Upstream.ts"
import * as Incidents from "./Incidents.ts"
import * as Observation from "./Observation.ts"

const { has, is } = Observation
const registry = Upstream.host
const maxUploads = 4
/** More than the thresholds of the alerts about misses and refusals. */
const manyLayers = Array.from({ length: 110 }, () => 1024)

interface Stage {
  readonly installation: Installation
  readonly observation: Observation.Observation
  readonly nodes: readonly [first: Node, second: Node, third: Node]
}

/** One node pulls what nobody has, then another one what the first has. */
const pulls = Effect.fnUntraced(function*({ installation, nodes: [first, second], observation }: Stage) {
  const { fires, quiet, shows } = observation
  const { cluster, newImage } = installation
  const many = yield* newImage(manyLayers)
  yield* Pods.pull(cluster, first, many)
  yield* fires("SpegelOnlyMisses")
  yield* shows("Found at a peer", is(0))
  yield* shows("Requests to peers", has({ registry, cache: "miss" }))
  yield* Pods.pull(cluster, second, many)
  // A peer's answer ends it.
  yield* quiet
  yield* shows("Found at a peer", (samples) => samples.some(({ value }) => value > 0 && value <= 1))
  yield* shows("Requests to peers", has({ registry, cache: "hit" }))
  yield* shows("Bytes sent", has({ source: "local", client: "peer" }))
  yield* shows("Bytes sent", has({ source: "peer", client: "node" }))
  for (const quantile of ["A", "B"]) yield* shows(`Time to find a peer ${quantile}`, has({}))
  for (const handler of ["blob", "manifest"]) yield* shows("Time to answer, p99", has({ handler }))
  for (const bound of ["A", "B"]) yield* shows(`Peers known ${bound}`, is(2))
  yield* shows("Records held A", has({}))
  yield* shows("Images advertised", has({ registry }))
})

/** The panels of each mirror's process show something. */
const processes = Effect.fnUntraced(function*({ nodes, observation: { podOf, shows } }: Stage) {
  for (const panel of ["Memory", "CPU", "Delay of the event loop, p99"]) {
    yield* shows(panel, (samples) => nodes.every((node) => has({ pod: podOf(node) })(samples)))
  }
})

/** A disk damages blobs: one pull may fail, and the next is right. */
const damagedBlobs = Effect.fnUntraced(function*({ installation, nodes: [first, second], observation }: Stage) {
  const { fires, podOf, shows } = observation
  const { cluster, newImage } = installation
  // The mirror holds the small one until it has hashed it, and passes the large one on to containerd, which does so.
  const sizes = [8 * 2 ** 20 + 4096, 64 * 1024 + 4096]
  const image = yield* newImage(sizes)
  yield* Pods.pull(cluster, first, image)
  yield* Effect.forEach(sizes, (size) => Incidents.damage(first, size))
  yield* Pods.pull(cluster, second, image)
  yield* fires("SpegelWrongBytes", second)
  yield* fires("SpegelDamagedBlobs", first)
  yield* shows("Wrong bytes of peers A", has({ pod: podOf(second) }))
  yield* shows("Peers that were left", has({ reason: "ContentCorrupted" }))
  yield* Incidents.wrongDownload(second)
  yield* shows("Wrong bytes of peers B", has({}))
})

/** A holder sends to as many peers as it may, and refuses the others. */
const busyHolder = Effect.fnUntraced(function*({ installation, nodes: [first, second, third], observation }: Stage) {
  const { addressOf, fires, shows } = observation
  const { cluster, newImage } = installation
  const size = 64 * 2 ** 20 + 4096
  yield* Pods.pull(cluster, first, yield* newImage([size]))
  const wanted = yield* newImage(manyLayers)
  yield* Pods.pull(cluster, first, wanted)
  yield* Incidents.slowReaders({ reader: third, holder: first, address: addressOf(first), size, count: maxUploads })
  yield* shows(
    "Requests being answered",
    (samples) => samples.some(({ labels, value }) => labels["handler"] === "blob" && value >= maxUploads)
  )
  yield* Pods.pull(cluster, second, wanted)
  yield* fires("SpegelPeersRefuse", second)
  yield* shows("Peers that were left", has({ reason: "PeerRefused" }))
}, Effect.scoped)

const unreadLog = Effect.fnUntraced(function*({ nodes: [, second], observation: { addressOf, fires } }: Stage) {
  yield* Incidents.unreadLog(second, addressOf(second))
  yield* fires("SpegelLogLinesDropped", second)
})

/** containerd bypasses its mirror. */
const unusedMirror = Effect.fnUntraced(function*({ installation, nodes: [, , third], observation }: Stage) {
  const { cluster, newImage } = installation
  yield* Incidents.withoutHostsToml(third)
  // Since containerd has asked this mirror before, one pull past it proves nothing.
  for (let pulls = 0; pulls < 3; pulls++) yield* Pods.pull(cluster, third, yield* newImage([1024]))
  yield* observation.fires("SpegelContainerdFault", third)
}, Effect.scoped)

/** A mirror loses its peers, and the DNS names of others. */
const aloneNode = Effect.fnUntraced(function*({ installation, nodes: [, , third], observation }: Stage) {
  const { fires, shows } = observation
  yield* installation.cluster.withoutDns
  yield* Incidents.withoutRouter(third)
  yield* fires("SpegelAlone", third)
  yield* shows("Peers known A", is(0))
  yield* shows("Records held B", has({}))
  yield* fires("SpegelTaskFailing", third)
}, Effect.scoped)

export const dashboardAndAlerts = Effect.fnUntraced(function*(installation: Installation) {
  const [first, second, third] = installation.nodes
  if (first === undefined || second === undefined || third === undefined) return ""
  // With a line of the log for each request.
  yield* installation.apply(["spegel.logLevel=DEBUG", `spegel.extraArgs={--max-uploads=${maxUploads}}`])
  const observation = yield* Observation.start(installation)
  const stage: Stage = { installation, observation, nodes: [first, second, third] }
  yield* observation.quiet
  yield* pulls(stage)
  yield* processes(stage)
  yield* damagedBlobs(stage)
  yield* busyHolder(stage)
  yield* unreadLog(stage)
  yield* unusedMirror(stage)
  yield* aloneNode(stage)
  const figures = yield* observation.all
  yield* installation.apply()
  return figures
}, Effect.scoped)
