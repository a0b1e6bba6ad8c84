/** What people see of downloads and requests while they run. */
import { assert, describe, it } from "@effect/vitest"
import { Router } from "@spegel-ts/router/Router"
import { eventually } from "@spegel-ts/testing/Eventually"
import { Effect, Fiber } from "effect"
import { large, largeDigest } from "../auth/ProvedPeers.ts"
import { startDownloading, startRoot } from "./DownloadingNode.ts"

describe("the activity of nodes", () => {
  it.live("shows who waits for whose download, who sends it to whom, and nothing once it has ended", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const root = yield* startRoot(network, "127.0.27.12")
      const follower = yield* startDownloading(network, "127.0.27.13")
      const pulling = yield* Effect.forkChild(follower.pull())
      const own = Effect.map(follower.activity, ({ requests }) => requests.find(({ own }) => own))

      yield* eventually(Effect.map(own, (request) => request?.waitingFor === root.id))
      const [left] = (yield* root.activity).downloads
      assert.deepInclude(left, { digest: largeDigest, origin: "upstream", size: large.length, followers: [] })
      assert.match(left?.image ?? "", /^[^/]+\/./)

      const half = large.subarray(0, large.length / 2)
      root.download.grow(half)
      yield* eventually(Effect.map(own, (request) => request?.sent === half.length))
      assert.deepInclude(yield* own, {
        source: root.id,
        waitingFor: undefined,
        content: largeDigest,
        size: large.length
      })
      const { downloads: [shared], requests: [upload] } = yield* root.activity
      assert.deepStrictEqual(shared?.followers, [follower.id])
      assert.deepInclude(upload, { own: false, mirrored: true, asker: follower.id, sent: half.length })

      root.download.grow(large.subarray(half.length))
      assert.isTrue((yield* Fiber.join(pulling)).body.equals(large))
      for (const { activity } of [root, follower]) {
        yield* eventually(Effect.map(activity, ({ requests }) => requests.length === 0))
      }
    }))
})
