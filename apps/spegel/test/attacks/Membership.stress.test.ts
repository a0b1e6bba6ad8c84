/** A machine tries to become many members, and says that it has many addresses. */
import { assert, describe, it } from "@effect/vitest"
import { type KeyRing } from "@spegel-ts/cluster-key/KeyRing"
import { newRing } from "@spegel-ts/testing/ClusterKeys"
import { testImage } from "@spegel-ts/testing/content/TestImage"
import { Effect, Schedule } from "effect"
import * as AttackedCluster from "./AttackedCluster.ts"
import { note } from "./Findings.ts"
import * as RawRogue from "./RawRogue.ts"

const image = testImage("held")
const reference = "docker.io/library/held:latest"
const path = AttackedCluster.manifestPath("library/held", "latest")
const foreign = newRing()

interface Try {
  /** The address that it says it has. */
  readonly claimed: string
  /** A key of its own; undefined if it proves nothing. */
  readonly ring: KeyRing | undefined
}

/**
 * One identity tries once: it connects, proves what it can, and takes part at once, until the node ends the connection. Returns
 * whether the node has done so.
 */
const attempt = Effect.fnUntraced(
  function*(cluster: AttackedCluster.AttackedCluster, { claimed, ring }: Try, millis: number) {
    const rogue = yield* RawRogue.start({ address: `${cluster.network}.66`, claimed, servicePort: 5000, ring })
    // A machine that begins too many handshakes at once is turned away before it has tried.
    const { closed, connection } = yield* Effect.tryPromise(() => rogue.connect(cluster.bootstrap)).pipe(
      Effect.retry({ schedule: Schedule.spaced("200 millis"), times: 50 }),
      Effect.orDie
    )
    return yield* Effect.promise(async () => {
      await Promise.allSettled([
        rogue.hello(connection),
        rogue.provide(connection, [RawRogue.dhtKey(reference)])
      ])
      return Promise.race([
        closed.then(() => true),
        new Promise<false>((resolve) => setTimeout(resolve, millis, false))
      ])
    })
  },
  Effect.scoped
)

describe("a machine that tries to become many members", { timeout: 240_000 }, () => {
  it.live("is none after 1,000 tries without the key", () =>
    Effect.gen(function*() {
      const cluster = yield* AttackedCluster.make({ network: "127.81.4", peerAuth: "require" })
      const victim = yield* cluster.start(2)
      const honest = yield* cluster.start(3, { images: { [reference]: image } })
      yield* AttackedCluster.untilTogether([victim, honest])
      const seen = new Set<string>()
      const watch = Effect.andThen(
        Effect.map(victim.members, (members) => members.forEach(({ id }) => seen.add(id))),
        Effect.sleep("250 millis")
      )
      const watching = yield* Effect.forkChild(Effect.forever(watch))
      const tries = 1000
      // A node waits five seconds for the proof of one that gives none.
      const ended = yield* Effect.forEach(Array.from({ length: tries }), (_, index) => {
        const claimed = `10.9.${index >> 8}.${index & 255}`
        return attempt(cluster, { claimed, ring: index % 2 === 0 ? undefined : foreign }, 10_000)
      }, { concurrency: 48 })
      const refused = victim.metric("spegel_peer_auth_failures_total")
      yield* AttackedCluster.until(Effect.map(refused, (count) => count === tries), "each try is counted")
      assert.isUndefined(watching.pollUnsafe())
      assert.deepStrictEqual([...seen], [honest.id])
      assert.deepStrictEqual((yield* honest.members).map(({ id }) => id), [victim.id])
      assert.deepStrictEqual(new Set(ended), new Set([true]))
      assert.strictEqual(yield* victim.metric("spegel_router_records"), 4)
      assert.isBelow(victim.warnings().length, 10)
      assert.strictEqual((yield* victim.pull(path)).status, 200)
      yield* note("1,000 tries to become a member", "has no key", `0 members; all ${tries} refused at the proof`)
    }))

  it.live("is as many as an address may be where nobody proves anything", () =>
    Effect.gen(function*() {
      const cluster = yield* AttackedCluster.make({ network: "127.81.5", peerAuth: "off" })
      const victim = yield* cluster.start(2)
      const tries = 24
      const one: Try = { claimed: "127.81.5.66", ring: undefined }
      yield* Effect.forkChild(
        Effect.forEach(
          Array.from({ length: tries }),
          // More handshakes at once than a node allows would be refused.
          (_, index) => Effect.delay(attempt(cluster, one, 60_000), 100 * index),
          { concurrency: tries }
        )
      )
      yield* AttackedCluster.until(Effect.map(victim.members, ({ length }) => length === 16), "16 of them are members")
      yield* note(`${tries} tries to become a member`, "off", "16 members, the bound of an address")
    }))
})
