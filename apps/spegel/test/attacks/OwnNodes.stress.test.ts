/** What the key must not cost: a node with another key or another clock, and a new tag that one node has while upstream is away. */
import { assert, describe, it } from "@effect/vitest"
import { generate } from "@spegel-ts/cluster-key/KeyRing"
import { testImage } from "@spegel-ts/testing/content/TestImage"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Effect } from "effect"
import { writeFile } from "node:fs/promises"
import { join } from "node:path"
import * as AttackedCluster from "./AttackedCluster.ts"
import { note } from "./Findings.ts"

const image = testImage("held")
const name = "docker.io/library/held:latest"
const path = AttackedCluster.manifestPath("library/held", "latest")

/** A day ahead of the others. */
const otherClock = `
  const RealDate = Date
  globalThis.Date = class extends RealDate {
    constructor(...parts) {
      if (parts.length === 0) super(RealDate.now() + 86_400_000)
      else super(...parts)
    }
    static now() {
      return RealDate.now() + 86_400_000
    }
  }
`

const pullMillis = Effect.fnUntraced(function*(node: AttackedCluster.AttackedNode) {
  const began = performance.now()
  const { body, status } = yield* node.pull(path)
  return { status, body: body.toString(), millis: performance.now() - began }
})

describe("nodes of a cluster with a key", { timeout: 120_000 }, () => {
  it.live("leave one with another key alone, which says why, and do not notice it", () =>
    Effect.gen(function*() {
      const cluster = yield* AttackedCluster.make({ network: "127.81.16", peerAuth: "require" })
      const nodes = [
        yield* cluster.start(2),
        yield* cluster.start(3, { images: { [name]: image } }),
        yield* cluster.start(4)
      ]
      yield* AttackedCluster.untilTogether(nodes)
      const keyFile = join(yield* temporary, "cluster-key")
      yield* Effect.promise(() => writeFile(keyFile, `${generate()}\n`))
      const wrong = yield* cluster.start(5, { keyFile })
      const pulls = yield* Effect.forEach(
        Array.from({ length: 20 }),
        () => Effect.andThen(Effect.sleep("50 millis"), pullMillis(wrong))
      )
      assert.deepStrictEqual(new Set(pulls.map(({ status }) => status)), new Set([404]))
      const median = pulls.map(({ millis }) => millis).toSorted((one, other) => one - other)[10] ?? Infinity
      assert.isBelow(median, 100)
      yield* AttackedCluster.until(
        Effect.sync(() => wrong.warnings().some((line) => line.includes("have another cluster key"))),
        "it says why it is alone"
      )
      // Whatever the others have to say of it comes within that time, too.
      yield* Effect.sleep("4 seconds")
      // When it could not join, and when it gives up to wait.
      assert.isAtMost(wrong.warnings().length, 2)
      for (const line of wrong.warnings()) assert.match(line, /have another cluster key.*give all nodes the same/)
      assert.deepStrictEqual(yield* wrong.members, [])
      for (const node of nodes) {
        assert.deepStrictEqual(node.warnings(), [])
        assert.strictEqual((yield* node.members).length, 2)
        assert.strictEqual((yield* node.pull(path)).status, 200)
      }
      yield* note(
        "one node has another key",
        "has no key",
        `alone, and says why; the others say nothing; 404 in ${median.toFixed(0)} ms`
      )
    }))

  it.live("pull from each other if their clocks differ by a day", () =>
    Effect.gen(function*() {
      const cluster = yield* AttackedCluster.make({ network: "127.81.17", peerAuth: "require" })
      const ahead = yield* cluster.start(2, {
        images: { [name]: image },
        environment: { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(otherClock)}` }
      })
      const other = testImage("other")
      const node = yield* cluster.start(3, { images: { "docker.io/library/other:latest": other } })
      yield* AttackedCluster.untilTogether([ahead, node])
      assert.match(ahead.log(), new RegExp(`"time":"${new Date(Date.now() + 86_400_000).toISOString().slice(0, 10)}T`))
      const isServed = (from: AttackedCluster.AttackedNode, name: string) =>
        Effect.map(from.pull(AttackedCluster.manifestPath(`library/${name}`, "latest")), ({ status }) => status === 200)
      yield* AttackedCluster.until(isServed(node, "held"), "the node pulls from the one that is ahead")
      yield* AttackedCluster.until(isServed(ahead, "other"), "the one that is ahead pulls from the node")
      const refused = yield* ahead.metric("spegel_peer_auth_failures_total", { reason: "clock" })
      // Once, until the difference is known.
      assert.isAbove(refused, 0)
      for (let pull = 0; pull < 20; pull++) assert.isTrue(yield* isServed(node, "held"))
      assert.strictEqual(yield* ahead.metric("spegel_peer_auth_failures_total", { reason: "clock" }), refused)
    }))

  it.live("resolve a new tag that one of them holds while upstream is away", () =>
    Effect.gen(function*() {
      const cluster = yield* AttackedCluster.make({ network: "127.81.18", peerAuth: "require" })
      const holder = yield* cluster.start(2)
      const node = yield* cluster.start(3)
      yield* AttackedCluster.untilTogether([holder, node])
      assert.strictEqual((yield* pullMillis(node)).status, 404)
      yield* AttackedCluster.hold(holder.writer, name, image)
      yield* AttackedCluster.until(Effect.map(pullMillis(node), ({ status }) => status === 200), "the tag resolves")
      const pulls = yield* Effect.forEach(Array.from({ length: 20 }), () => pullMillis(node))
      const served = pulls.filter(({ body, status }) => status === 200 && body === image.manifest.toString())
      // A pull that a busy machine makes slow is left to upstream.
      assert.isAtLeast(served.length, 18)
      for (const bytes of [image.config, image.layer]) {
        const { body } = yield* node.pull(AttackedCluster.blobPath("library/held", bytes))
        assert.isTrue(body.equals(bytes))
      }
      yield* note(
        "a new tag with one honest holder, upstream away",
        "has no key",
        `${served.length} of 20 pulls served`
      )
    }))
})
