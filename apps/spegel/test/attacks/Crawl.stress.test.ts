/** A peer gives a large layer a little faster than the slowest speed allowed, and sees to it that it is asked first. */
import { assert, describe, it } from "@effect/vitest"
import * as Digest from "@spegel-ts/oci/Digest"
import * as RandomImage from "@spegel-ts/testing/content/RandomImage"
import { Effect } from "effect"
import * as AttackedCluster from "./AttackedCluster.ts"
import { note } from "./Findings.ts"
import * as RawRogue from "./RawRogue.ts"
import * as RogueMember from "./RogueMember.ts"
import * as RogueServer from "./RogueServer.ts"

const layer = RandomImage.noise(1, 16 * 1024 * 1024)
/** Above `--mirror-min-speed`, 512 KiB/s. */
const bytesPerSecond = 700_000
const aloneSeconds = layer.length / bytesPerSecond
/** Pulls until it was asked once: each of the four addresses is as likely as the others. */
const maxPulls = 100
/** And after that. */
const pullsAfter = 5

const secondsOf = Effect.fnUntraced(function*(victim: AttackedCluster.AttackedNode) {
  const began = performance.now()
  const { body, status } = yield* victim.pull(AttackedCluster.blobPath("library/app", layer))
  assert.strictEqual(status, 200)
  assert.isTrue(body.equals(layer))
  return (performance.now() - began) / 1000
})

describe("a machine whose peers crawl", { timeout: 120_000 }, () => {
  it.live("costs a pull some seconds if it has the key, and not the time that it would take", () =>
    Effect.gen(function*() {
      const cluster = yield* AttackedCluster.make({ network: "127.81.14", peerAuth: "require" })
      const victim = yield* cluster.start(2)
      const holders = yield* Effect.forEach([3, 4, 5], (host) => cluster.start(host, { blobs: [layer] }), {
        concurrency: 3
      })
      yield* AttackedCluster.untilTogether([victim, ...holders])
      const address = "127.81.14.66"
      const { ring } = cluster
      const server = yield* RogueServer.start({ address, ring }, RogueServer.crawls(layer, bytesPerSecond))
      const rogues = yield* Effect.forEach(
        Array.from({ length: RogueMember.identitiesOfAddress }),
        () => RawRogue.start({ address, servicePort: server.port, ring })
      )
      yield* Effect.forEach(rogues, (rogue) =>
        Effect.promise(async () => {
          const { connection, isProved } = await rogue.connect(cluster.bootstrap)
          assert.isTrue(isProved)
          await rogue.hello(connection)
          await rogue.provide(connection, [RawRogue.dhtKey(Digest.ofBytes(layer))])
          await rogue.keepPinging(connection, 50)
        }), { concurrency: 4, discard: true })
      yield* AttackedCluster.until(
        Effect.map(victim.members, ({ length }) => length === holders.length + rogues.length),
        "all rogues are members"
      )
      yield* Effect.sleep("1 second")
      const times: Array<number> = []
      while (server.asked.length === 0 && times.length < maxPulls) times.push(yield* secondsOf(victim))
      assert.isNotEmpty(server.asked)
      for (let pull = 0; pull < pullsAfter; pull++) times.push(yield* secondsOf(victim))
      const slowest = Math.max(...times)
      assert.isBelow(slowest, aloneSeconds / 2)
      yield* note(
        `16 identities at ${bytesPerSecond / 1000} KB/s, 16 MiB layer, three honest holders`,
        "has the key",
        `${times.length} pulls, it was asked in ${server.asked.length}: the slowest took ${
          slowest.toFixed(1)
        } s (from it alone ${aloneSeconds.toFixed(0)} s)`
      )
    }))
})
