/** Nodes that wait for each other's downloads, for as long as they really wait. */
import { assert, describe, it } from "@effect/vitest"
import * as Digest from "@spegel-ts/oci/Digest"
import * as Deciders from "@spegel-ts/registry/internal/flight/Deciders"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import { type MemoryNetwork, Router } from "@spegel-ts/router/Router"
import { eventually } from "@spegel-ts/testing/Eventually"
import { Effect, Fiber } from "effect"
import { auth } from "../auth/Keys.ts"
import { blobUrl, large, largeDigest, signedAnswer, startProvedFalsePeer } from "../auth/ProvedPeers.ts"
import * as FalsePeer from "../mirror/FalsePeer.ts"
import { startNode } from "../TestNode.ts"
import { own, startDownloading, startRoot, untilAsked } from "./DownloadingNode.ts"
import * as TestDownload from "./TestDownload.ts"

const ascending = (one: number, other: number) => one - other

/** A node whose containerd is about to download a layer, together with others. */
const startOfMany = (network: MemoryNetwork, address: string) =>
  startDownloading(network, address, { inProgress: "single-flight" })

describe("nodes that begin in the same moment", { timeout: 30_000 }, () => {
  it.live("wait for the one of them that downloads, and get it from each other", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const nodes = yield* Effect.forEach([2, 3, 4, 5, 6, 7], (host) => startOfMany(network, `127.0.28.${host}`))
      const pulls = yield* Effect.forEach(nodes, (node) =>
        Effect.map(Effect.forkChild(node.pull()), (fiber) => ({ node, fiber })))
      const ended = () =>
        pulls.filter(({ fiber }) => fiber.pollUnsafe() !== undefined)
      yield* eventually(() => ended().length > 0)
      assert.lengthOf(ended(), 1)
      ended()[0]?.node.download.grow(large)
      // Each has what it got.
      const answers = yield* Effect.forEach(pulls, ({ fiber, node }) =>
        Effect.tap(Fiber.join(fiber), ({ body, status }) =>
          Effect.sync(() => {
            if (status === 200) {
              node.download.grow(body)
            }
          })), { concurrency: "unbounded" })
      assert.deepStrictEqual(
        answers.map(({ status }) =>
          status
        ).toSorted(ascending),
        [200, 200, 200, 200, 200, 404]
      )
      for (const { body, status } of answers) {
        if (status === 200) {
          assert.isTrue(body.equals(large))
        }
      }
    }))

  it.live("let the next one download if the first one's download has ended without its content", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const nodes = yield* Effect.forEach([2, 3, 4], (host) => startOfMany(network, `127.0.28.${host}`))
      const pulling = yield* Effect.forEach(nodes, ({ pull }) => Effect.forkChild(pull()))
      const roots = () => nodes.filter((_, index) => pulling[index]?.pollUnsafe() !== undefined)
      yield* eventually(() => roots().length === 1)
      const [first] = roots()
      first?.download.end("given up")
      yield* eventually(() => roots().length === 2)
      roots().find((node) => node !== first)?.download.grow(large)
      yield* eventually(() => roots().length === 3)
      const statuses = yield* Effect.forEach(pulling, (fiber) => Effect.map(Fiber.join(fiber), ({ status }) => status))
      assert.deepStrictEqual(statuses.toSorted(ascending), [200, 404, 404])
    }))

  it.live(
    "wait no longer than a few seconds for one that others name, and that shows nothing",
    () =>
      Effect.gen(function*() {
        const network = Router.memoryNetwork()
        const liars = yield* Effect.forEach([30, 31, 32, 33], (host) =>
          startProvedFalsePeer(
            network,
            `127.0.28.${host}`,
            (request) => signedAnswer(request, 404, "", { "x-spegel-lease": "wait nobody" })
          ))
        const self = "node-127.0.28.29"
        const peers = liars.map(({ id }) => ({ id, addresses: ["127.0.28.30"], servicePort: 1, proved: true }))
        const layers = Array.from({ length: 100 }, (_, index) => Buffer.from(`layer ${index}`))
        const layer = layers.find((bytes) => !Deciders.choose(Digest.ofBytes(bytes), self, peers).includes(self))
        if (layer === undefined) return assert.fail("no layer that only liars decide on")
        const download = yield* TestDownload.make(Digest.ofBytes(layer), layer.length)
        download.begin()
        const node = yield* startNode(network, "127.0.28.29", {
          auth: auth("require"),
          proved: true,
          nodeName: "here",
          ...download.options
        })
        const url = blobUrl(node.url, Digest.ofBytes(layer))
        assert.strictEqual((yield* FalsePeer.get(url, { headers: own })).status, 404)
        // They were asked more than once.
        const asked = () => liars.reduce((sum, { requests }) => sum + requests.length, 0)
        const before = asked()
        assert.isAbove(before, 4)
        // containerd asks again before it goes on from upstream: that it is to download itself is known.
        assert.strictEqual((yield* FalsePeer.get(url, { headers: own })).status, 404)
        assert.strictEqual(asked(), before)
      }),
    15_000
  )

  it.live("download each for themselves where only one of them takes part", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const one = yield* startOfMany(network, "127.0.28.2")
      const other = yield* startDownloading(network, "127.0.28.3", { inProgress: "off" })
      const answers = yield* Effect.all([one.pull(), other.pull()], { concurrency: "unbounded" })
      assert.deepStrictEqual(answers.map(({ status }) => status), [404, 404])
    }))
})

describe("a download in progress", () => {
  it.live("is waited for no longer once its node has given it up", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const root = yield* startRoot(network, "127.0.27.2")
      const follower = yield* startDownloading(network, "127.0.27.3")
      const pulling = yield* Effect.forkChild(follower.pull())
      yield* untilAsked(root)
      root.download.end("given up")
      assert.strictEqual((yield* Fiber.join(pulling)).status, 404)
      // Now it is the one that others wait for.
      yield* eventually(() => network.providers.get(ContentKey.make(largeDigest))?.has(root.id) !== true)
      assert.isTrue(network.providers.get(ContentKey.make(largeDigest))?.has(follower.id))
    }))
})
