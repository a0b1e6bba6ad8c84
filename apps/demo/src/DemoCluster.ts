/**
 * An upstream registry and a few nodes, each in a process of its own. The nodes listen on 127.0.0.2, .3, ... with the same
 * ports, as pods on different hosts do.
 */
import * as OciLayoutWriter from "@spegel-ts/content/OciLayoutWriter"
import * as MirrorPorts from "@spegel-ts/testing/node/MirrorPorts"
import { Data, Effect } from "effect"
import { mkdir } from "node:fs/promises"
import { join } from "node:path"
import * as DemoProcess from "./DemoProcess.ts"

/** This machine lacks something that the demo needs, or a command failed. */
export class DemoUnsupported extends Data.TaggedError("DemoUnsupported")<{ readonly reason: string }> {
  override get message() {
    return this.reason
  }
}

/** A node; `registry` and `metrics` are URLs. */
export interface DemoNode {
  readonly name: string
  readonly address: string
  readonly directory: string
  readonly registry: string
  readonly metrics: string
}

const upstreamAddress = "127.0.0.100"

/** Starts the registry that nodes without a mirror pull from: a `spegel` that serves an image layout and has no peers. */
export const startUpstream = Effect.fn("DemoCluster.startUpstream")(function*(root: string) {
  const ports = yield* MirrorPorts.free
  const url = `http://${upstreamAddress}:${ports.registry}`
  yield* DemoProcess.start({
    name: "the upstream registry",
    args: [
      "registry",
      `--store=oci-layout:${root}`,
      `--data-dir=${join(root, "..", "upstream-identity")}`,
      ...MirrorPorts.flags(upstreamAddress, ports),
      "--bootstrap-kind=static",
      `--static-bootstrap-peers=${upstreamAddress}:${ports.router}`,
      "--log-level=error"
    ],
    url
  })
  return { url, metrics: `http://${upstreamAddress}:${ports.metrics}` }
})

/** Starts the nodes; `storeOf` gives the flags with which a node uses its store. */
export const startNodes = Effect.fn("DemoCluster.startNodes")(function*<E, R>(options: {
  readonly count: number
  readonly directory: string
  readonly storeOf: (node: DemoNode) => Effect.Effect<ReadonlyArray<string>, E, R>
}) {
  const ports = yield* MirrorPorts.free
  const nodes = Array.from({ length: options.count }, (_, index): DemoNode => {
    const address = `127.0.0.${index + 2}`
    return {
      name: `node ${index + 1}`,
      address,
      directory: join(options.directory, `node-${index + 1}`),
      registry: `http://${address}:${ports.registry}`,
      metrics: `http://${address}:${ports.metrics}`
    }
  })
  yield* Effect.forEach(nodes, (node) =>
    Effect.gen(function*() {
      yield* Effect.promise(() => mkdir(node.directory, { recursive: true }))
      const store = yield* options.storeOf(node)
      yield* DemoProcess.start({
        name: node.name,
        args: [
          "registry",
          ...store,
          `--data-dir=${join(node.directory, "data")}`,
          ...MirrorPorts.flags(node.address, ports),
          "--bootstrap-kind=static",
          `--static-bootstrap-peers=${nodes[0]?.address}:${ports.router}`,
          "--log-level=warn"
        ],
        url: node.registry
      })
    }), { concurrency: "unbounded", discard: true })
  return nodes
})

/** Makes an empty image layout as a node's store; gives the flags for it. */
export const layoutStore = (node: DemoNode) => {
  const root = join(node.directory, "layout")
  return Effect.as(OciLayoutWriter.make({ root }), [`--store=oci-layout:${root}`])
}
