/**
 * The nodes, each in a process of its own. They listen on 127.0.0.2, .3, ... with the same ports, as pods on different hosts do. Each
 * has an image layout as its store, into which the demo writes what it pulls for that node.
 */
import * as OciLayoutWriter from "@spegel-ts/content/OciLayoutWriter"
import * as ClusterKeys from "@spegel-ts/testing/ClusterKeys"
import * as MirrorPorts from "@spegel-ts/testing/node/MirrorPorts"
import { Effect } from "effect"
import { join } from "node:path"
import * as DemoProcess from "./DemoProcess.ts"

/** A node; `registry` and `metrics` are URLs. */
export interface DemoNode {
  readonly name: string
  readonly address: string
  readonly registry: string
  readonly metrics: string
  /** The layout that is its store. */
  readonly root: string
  readonly writer: OciLayoutWriter.OciLayoutWriter
  /** What its client sends to its mirror. */
  readonly headers: Readonly<Record<string, string>>
  /** Kills its mirror with SIGKILL. */
  readonly kill: Effect.Effect<void>
}

export interface NodesOptions {
  readonly count: number
  readonly directory: string
  /** A node is ready, so many milliseconds after the beginning. */
  readonly onReady: (node: Pick<DemoNode, "name" | "registry">, millis: number) => Effect.Effect<void>
}

/** Starts the nodes, all at once, and waits until they are ready. */
export const start = Effect.fn("DemoCluster.start")(function*({ count, directory, onReady }: NodesOptions) {
  const begun = performance.now()
  const ports = yield* MirrorPorts.free
  const key = yield* ClusterKeys.writeTo(join(directory, "cluster-key"))
  const addresses = Array.from({ length: count }, (_, index) => `127.0.0.${index + 2}`)
  return yield* Effect.forEach(addresses, (address, index) =>
    Effect.gen(function*() {
      const id = `node-${index + 1}`
      const name = `node ${index + 1}`
      const root = join(directory, id, "layout")
      const registry = `http://${address}:${ports.registry}`
      const writer = yield* Effect.orDie(OciLayoutWriter.make({ root }))
      const { kill } = yield* DemoProcess.start({
        name,
        args: [
          "registry",
          `--store=oci-layout:${root}`,
          `--data-dir=${join(directory, id, "data")}`,
          ...MirrorPorts.flags(address, ports),
          "--bootstrap-kind=static",
          `--static-bootstrap-peers=${addresses[0]}:${ports.router}`,
          key.flag,
          `--node-name=${id}`,
          "--log-level=warn"
        ],
        url: registry
      })
      yield* onReady({ name, registry }, performance.now() - begun)
      return {
        name,
        address,
        registry,
        metrics: `http://${address}:${ports.metrics}`,
        root,
        writer,
        // The mirror watches what becomes of containerd's downloads, and this client stores them as containerd does.
        headers: { authorization: `Bearer ${key.tokenOf(id)}`, "user-agent": "containerd/demo" },
        kill
      } satisfies DemoNode
    }), { concurrency: "unbounded" })
})
