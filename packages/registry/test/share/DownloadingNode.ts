/** Nodes whose containerd downloads a layer. */
import { assert } from "@effect/vitest"
import * as ClientToken from "@spegel-ts/cluster-key/ClientToken"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import type { MemoryNetwork } from "@spegel-ts/router/Router"
import { eventually } from "@spegel-ts/testing/Eventually"
import { Duration, Effect } from "effect"
import { auth, ring } from "../auth/Keys.ts"
import { blobUrl, large, largeDigest } from "../auth/ProvedPeers.ts"
import * as FalsePeer from "../mirror/FalsePeer.ts"
import { startNode } from "../TestNode.ts"
import * as TestDownload from "./TestDownload.ts"

/** The headers of a node's own containerd. */
export const own = {
  authorization: `Bearer ${ClientToken.make(ring, "here") ?? ""}`,
  "user-agent": "containerd/2.1.9"
}

/** A node whose containerd downloads a layer. */
export const startDownloading = Effect.fnUntraced(function*(
  network: MemoryNetwork,
  address: string,
  options: Parameters<typeof startNode>[2] = {}
) {
  const download = yield* TestDownload.make(largeDigest, large.length)
  download.begin()
  const node = yield* startNode(network, address, {
    auth: auth("require"),
    proved: true,
    nodeName: "here",
    hedgeDelay: Duration.seconds(30),
    inProgress: "share",
    ...download.options,
    ...options
  })
  const pull = (range?: string) =>
    FalsePeer.get(blobUrl(node.url, largeDigest), { headers: { ...own, ...(range === undefined ? {} : { range }) } })
  return { ...node, download, pull }
})

/** A node that its mirror has left to upstream: peers know of its download. */
export const startRoot = Effect.fnUntraced(function*(network: MemoryNetwork, address: string) {
  const node = yield* startDownloading(network, address)
  assert.strictEqual((yield* node.pull()).status, 404)
  yield* eventually(() => network.providers.get(ContentKey.make(largeDigest))?.has(node.id) === true)
  return node
})

/** Waits until a peer has asked a node. */
export const untilAsked = ({ log }: Effect.Success<ReturnType<typeof startRoot>>) =>
  eventually(Effect.map(log.recent, (events) => events.some(({ mirrored }) => mirrored)))
