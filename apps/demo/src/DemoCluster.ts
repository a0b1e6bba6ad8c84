/**
 * An upstream registry and a few nodes, each a process of its own. Nodes listen on 127.0.0.2, .3, ... with the same
 * ports, as pods on different hosts do.
 */
import * as OciLayoutWriter from "@spegel-ts/content/OciLayoutWriter"
import { Data, Effect } from "effect"
import { mkdir, mkdtemp, rm } from "node:fs/promises"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as DemoProcess from "./DemoProcess.ts"

/** The machine does not give what the demo needs. */
export class DemoUnsupported extends Data.TaggedError("DemoUnsupported")<{ readonly reason: string }> {
  override get message() {
    return this.reason
  }
}

export interface DemoNode {
  readonly name: string
  readonly address: string
  readonly directory: string
  readonly registry: string
  readonly metrics: string
}

const upstreamAddress = "127.0.0.100"

/** A port that is free on all addresses at this moment. */
const freePort: Effect.Effect<number, DemoUnsupported> = Effect.callback((resume) => {
  const server = createServer()
  server.once(
    "error",
    (error) => resume(Effect.fail(new DemoUnsupported({ reason: `no free port: ${error.message}` })))
  )
  server.listen(0, () => {
    const address = server.address()
    server.close(() => resume(Effect.succeed(typeof address === "object" && address !== null ? address.port : 0)))
  })
})

export const isOk = (url: string): Effect.Effect<boolean> =>
  Effect.promise((signal) => fetch(url, { signal }).then((response) => response.ok, () => false))

/** A directory of the demo's own, removed with the scope. */
export const directory = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "spegel-demo-"))),
  (path) => Effect.promise(() => rm(path, { recursive: true, force: true, maxRetries: 5 }))
)

/** Starts the registry that the nodes would pull from without a mirror: one that serves an image layout and asks nobody. */
export const startUpstream = Effect.fn("DemoCluster.startUpstream")(function*(root: string) {
  const [port, router, metrics] = yield* Effect.all([freePort, freePort, freePort])
  const at = (port: number) => `http://${upstreamAddress}:${port}`
  yield* DemoProcess.start({
    name: "the upstream registry",
    ...DemoProcess.spegel([
      "registry",
      `--store=oci-layout:${root}`,
      `--data-dir=${join(root, "..", "upstream-identity")}`,
      `--registry-addr=${upstreamAddress}:${port}`,
      `--router-addr=${upstreamAddress}:${router}`,
      `--metrics-addr=${upstreamAddress}:${metrics}`,
      "--bootstrap-kind=static",
      `--static-bootstrap-peers=${upstreamAddress}:${router}`,
      "--log-level=error"
    ]),
    ready: isOk(`${at(port)}/readyz`)
  })
  return { url: at(port), metrics: at(metrics) }
})

/** Starts the nodes. `storeOf` gives the flags of a node's store. */
export const startNodes = Effect.fn("DemoCluster.startNodes")(function*<E, R>(options: {
  readonly count: number
  readonly directory: string
  readonly storeOf: (node: DemoNode) => Effect.Effect<ReadonlyArray<string>, E, R>
}) {
  const [registryPort, routerPort, metricsPort] = yield* Effect.all([freePort, freePort, freePort])
  const nodes = Array.from({ length: options.count }, (_, index): DemoNode => {
    const address = `127.0.0.${index + 2}`
    return {
      name: `node ${index + 1}`,
      address,
      directory: join(options.directory, `node-${index + 1}`),
      registry: `http://${address}:${registryPort}`,
      metrics: `http://${address}:${metricsPort}`
    }
  })
  yield* Effect.forEach(nodes, (node) =>
    Effect.gen(function*() {
      yield* Effect.promise(() => mkdir(node.directory, { recursive: true }))
      const store = yield* options.storeOf(node)
      yield* DemoProcess.start({
        name: node.name,
        ...DemoProcess.spegel([
          "registry",
          ...store,
          `--data-dir=${join(node.directory, "data")}`,
          `--registry-addr=${node.address}:${registryPort}`,
          `--router-addr=${node.address}:${routerPort}`,
          `--metrics-addr=${node.address}:${metricsPort}`,
          "--bootstrap-kind=static",
          `--static-bootstrap-peers=${nodes[0]?.address}:${routerPort}`,
          "--log-level=warn"
        ]),
        ready: isOk(`${node.registry}/readyz`)
      })
    }), { concurrency: "unbounded", discard: true })
  return nodes
})

/** An empty image layout as a node's store. */
export const layoutStore = (node: DemoNode) => {
  const root = join(node.directory, "layout")
  return Effect.as(OciLayoutWriter.make({ root }), [`--store=oci-layout:${root}`])
}
