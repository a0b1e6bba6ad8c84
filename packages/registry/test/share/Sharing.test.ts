import { assert, describe, it } from "@effect/vitest"
import * as ClientToken from "@spegel-ts/cluster-key/ClientToken"
import { Outcome } from "@spegel-ts/registry/Outcome"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import { type MemoryNetwork, Router } from "@spegel-ts/router/Router"
import { eventually } from "@spegel-ts/testing/Eventually"
import { Effect, Fiber } from "effect"
import { get } from "node:http"
import { auth, ring, signed } from "../auth/Keys.ts"
import { blobUrl, large, largeDigest } from "../auth/ProvedPeers.ts"
import * as FalsePeer from "../mirror/FalsePeer.ts"
import { recordedOf } from "../Recorded.ts"
import { startNode } from "../TestNode.ts"
import { own, startDownloading, startRoot, untilAsked } from "./DownloadingNode.ts"

const [first, second, third] = [
  large.subarray(0, 2_000_000),
  large.subarray(2_000_000, 4_000_000),
  large.subarray(4_000_000)
]

/** The bytes of a body as they come. */
const reading = (url: string, headers: Record<string, string> = own) => {
  const body = { status: 0, bytes: 0, broken: false, ended: false }
  get(url, { headers }, (response) => {
    body.status = response.statusCode ?? 0
    response.on("data", (chunk: Buffer) => body.bytes += chunk.length)
    response.on("error", () => body.broken = true)
    response.on("end", () => body.ended = true)
  })
  return body
}

/** A node whose containerd has the first bytes of another node's download, and waits for more. */
const startFollowing = Effect.fnUntraced(function*(network: MemoryNetwork) {
  const root = yield* startRoot(network, "127.0.27.2")
  root.download.grow(first)
  const follower = yield* startDownloading(network, "127.0.27.3")
  const body = reading(blobUrl(follower.url, largeDigest))
  yield* eventually(() => body.bytes === first.length)
  return { root, follower, body }
})

describe("a download in progress", () => {
  it.live("is given to another node's containerd as it grows", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const { body, follower, root } = yield* startFollowing(network)
      assert.isFalse(body.ended)
      root.download.grow(second)
      yield* eventually(() => body.bytes === first.length + second.length)
      root.download.grow(third)
      yield* eventually(() => body.ended)
      assert.deepStrictEqual([body.status, body.bytes], [200, large.length])
      // Its own download grows too, and peers know of it.
      assert.isTrue(network.providers.get(ContentKey.make(largeDigest))?.has(follower.id))
    }))

  it.live("is waited for until its first bytes are there", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const root = yield* startRoot(network, "127.0.27.2")
      const follower = yield* startDownloading(network, "127.0.27.3")
      const pulling = yield* Effect.forkChild(follower.pull())
      yield* untilAsked(root)
      assert.isUndefined(pulling.pollUnsafe())
      root.download.grow(large)
      assert.isTrue((yield* Fiber.join(pulling)).body.equals(large))
    }))

  it.live("that is given up in the middle ends early, or is continued from a node that has it", () =>
    Effect.gen(function*() {
      for (const isHeld of [false, true]) {
        const network = Router.memoryNetwork()
        const { body, root } = yield* startFollowing(network)
        if (isHeld) {
          const holder = yield* startNode(network, "127.0.27.4", { auth: auth("require"), proved: true })
          yield* holder.router.advertise([ContentKey.make(yield* holder.content.put(large))])
        }
        root.download.end("given up")
        yield* eventually(() => body.broken || body.ended)
        assert.deepStrictEqual([body.broken, body.bytes], [!isHeld, isHeld ? large.length : first.length])
      }
    }))

  it.live("goes on to be sent when it was committed", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const { body, root } = yield* startFollowing(network)
      root.download.grow(second)
      root.download.grow(third)
      root.download.end("committed")
      yield* eventually(() => body.ended)
      assert.strictEqual(body.bytes, large.length)
    }))

  it.live("of a manifest is advertised to nobody: no node takes a part of it", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const node = yield* startDownloading(network, "127.0.27.2")
      const key = ContentKey.make(largeDigest)
      const isAdvertised = () => network.providers.get(key)?.has(node.id) === true
      const url = blobUrl(node.url, largeDigest)
      assert.strictEqual((yield* FalsePeer.get(url.replace("blobs", "manifests"), { headers: own })).status, 404)
      assert.isFalse(isAdvertised())
      assert.strictEqual((yield* FalsePeer.get(url, { headers: own })).status, 404)
      yield* eventually(isAdvertised)
    }))

  it.live("gives only bytes that lie before its end, and names it to those who ask for others", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const root = yield* startRoot(network, "127.0.27.2")
      root.download.grow(first)
      const target = `/v2/team/app/blobs/${largeDigest}?ns=${FalsePeer.ns}`
      for (
        const [range, status] of [[`bytes=${first.length}-`, 404], [
          `bytes=${first.length - 1}-${first.length - 1}`,
          206
        ]] as const
      ) {
        const { headers } = signed({
          receiver: root.id,
          target,
          range,
          said: ["x-spegel-in-progress", "accepted asker 0"]
        })
        const answer = yield* FalsePeer.get(root.url + target, {
          headers: { ...headers, range, "x-spegel-in-progress": "accepted asker 0" }
        })
        assert.deepStrictEqual(
          [answer.status, answer.headers.get("x-spegel-in-progress")],
          [status, `upstream ${first.length} 0`]
        )
      }
    }))

  it.live("is given to nobody else: not to its own containerd, to other clients, or to peers that do not ask for it", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const root = yield* startRoot(network, "127.0.27.2")
      root.download.grow(first)
      const target = `/v2/team/app/blobs/${largeDigest}?ns=${FalsePeer.ns}`
      const { headers } = signed({ receiver: root.id, target })
      const flag = { "x-spegel-in-progress": "accepted asker 0" }
      const there = { authorization: `Bearer ${ClientToken.make(ring, "there") ?? ""}` }
      for (
        const asking of [
          { ...own, ...flag },
          { ...own, ...flag, "x-spegel-mirrored": "true" },
          { ...there, ...flag, "x-spegel-mirrored": "true" },
          // The flag was added on the way.
          { ...headers, ...flag },
          headers
        ]
      ) {
        const answer = yield* FalsePeer.get(root.url + target, { headers: asking })
        assert.strictEqual(answer.status, 404, JSON.stringify(asking))
        assert.isNull(answer.headers.get("x-spegel-in-progress"))
      }
    }))

  it.live("is sent to two nodes, even if more ask in the same moment", () =>
    Effect.gen(function*() {
      const root = yield* startRoot(Router.memoryNetwork(), "127.0.27.2")
      root.download.grow(first)
      const target = `/v2/team/app/blobs/${largeDigest}?ns=${FalsePeer.ns}`
      const bodies = Array.from({ length: 6 }, (_, index) => {
        const said = ["x-spegel-in-progress", `accepted asker${index} 0`] as const
        const { headers } = signed({ receiver: root.id, target, said })
        return reading(root.url + target, { ...headers, [said[0]]: said[1] })
      })
      yield* eventually(() => bodies.every(({ status }) => status > 0))
      const statuses = bodies.map(({ status }) => status).toSorted((one, other) => one - other)
      assert.deepStrictEqual(statuses, [200, 200, 404, 404, 404, 404])
    }))

  it.live("is not taken in parts by a containerd that fetches several at once, and fails if one is not there", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const root = yield* startRoot(network, "127.0.27.2")
      root.download.grow(large)
      for (const [first, status] of [[undefined, 206], ["bytes=0-", 404]] as const) {
        const follower = yield* startDownloading(network, "127.0.27.4")
        assert.strictEqual((yield* follower.pull(first)).status, 200)
        assert.strictEqual((yield* follower.pull("bytes=1000-")).status, status, first)
      }
    }))

  it.live("is taken by this node's own containerd only, and where sharing is on", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const root = yield* startRoot(network, "127.0.27.2")
      root.download.grow(first)
      const off = yield* startDownloading(network, "127.0.27.3", { inProgress: "off" })
      assert.strictEqual((yield* off.pull()).status, 404)
      assert.isFalse(network.providers.get(ContentKey.make(largeDigest))?.has(off.id))
      const follower = yield* startDownloading(network, "127.0.27.4")
      const there = { authorization: `Bearer ${ClientToken.make(ring, "there") ?? ""}` }
      assert.strictEqual((yield* FalsePeer.get(blobUrl(follower.url, largeDigest), { headers: there })).status, 404)
    }))

  it.live("is not waited for that waits itself", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      // Both downloads have begun, and neither was left to upstream.
      const one = yield* startDownloading(network, "127.0.27.2")
      const other = yield* startDownloading(network, "127.0.27.3")
      for (const node of [one, other]) yield* node.router.advertise([ContentKey.make(largeDigest)])
      assert.strictEqual((yield* one.pull()).status, 404)
      // Now one of them is a download from upstream.
      const pulling = yield* Effect.forkChild(other.pull())
      one.download.grow(large)
      assert.isTrue((yield* Fiber.join(pulling)).body.equals(large))
      const { attempts } = yield* recordedOf(other.log, largeDigest)
      assert.deepStrictEqual(attempts.at(-1)?.outcome, Outcome.Served())
    }))
})
