/** Identities of one machine fill the record store of every node with keys that nobody asks for. */
import { assert, describe, it } from "@effect/vitest"
import { testImage } from "@spegel-ts/testing/content/TestImage"
import { Effect } from "effect"
import { randomBytes } from "node:crypto"
import * as AttackedCluster from "./AttackedCluster.ts"
import { note } from "./Findings.ts"
import * as RawRogue from "./RawRogue.ts"

const image = testImage("before")
const later = testImage("later")
const path = (name: string) => AttackedCluster.manifestPath(`library/${name}`, "latest")

/** More than the bound of all records together, 400,000, and less than that of one identity. */
const identities = 5
const recordsOfIdentity = 99_000

const randomKeys = function*() {
  for (let sent = 0; sent < recordsOfIdentity; sent++) yield Buffer.concat([Uint8Array.of(0x12, 0x20), randomBytes(32)])
}

describe("a machine that fills the record store", { timeout: 120_000 }, () => {
  it.live("pushes out no record of another address if it has the key, and nobody is banned", () =>
    Effect.gen(function*() {
      const cluster = yield* AttackedCluster.make({ network: "127.81.15", peerAuth: "require" })
      const { ring } = cluster
      // A node that still takes in the last records is slow: what is lost is to be told from what comes late.
      const victim = yield* cluster.start(2, { flags: ["--mirror-resolve-timeout=1s"] })
      const honest = yield* cluster.start(3, { images: { "docker.io/library/before:latest": image } })
      yield* AttackedCluster.untilTogether([victim, honest])
      const isFound = (name: string) => Effect.map(victim.pull(path(name)), ({ status }) => status === 200)
      yield* AttackedCluster.until(isFound("before"), "the honest image is found")

      const flood = Effect.gen(function*() {
        const rogue = yield* RawRogue.start({ address: "127.81.15.66", servicePort: 5000, ring })
        yield* Effect.promise(async () => {
          const { connection, isProved } = await rogue.connect(cluster.bootstrap)
          assert.isTrue(isProved)
          await rogue.hello(connection)
          await rogue.provide(connection, randomKeys())
        })
      })
      yield* Effect.forEach(Array.from({ length: identities }), () => flood, { discard: true })
      const records = victim.metric("spegel_router_records")
      yield* AttackedCluster.until(Effect.map(records, (count) => count === 400_000), "the store is full")

      // What was known is still found, and what comes now is, too.
      for (let pull = 0; pull < 20; pull++) assert.isTrue(yield* isFound("before"))
      yield* AttackedCluster.hold(honest.writer, "docker.io/library/later:latest", later)
      yield* AttackedCluster.until(isFound("later"), "the new image is found")
      const ids = (yield* victim.members).map(({ id }) => id)
      assert.include(ids, honest.id)
      assert.deepStrictEqual(victim.warnings().filter((line) => line.includes(honest.id)), [])

      assert.deepStrictEqual((yield* honest.members).map(({ id }) => id).filter((id) => id === victim.id), [victim.id])
      yield* note(
        `${identities} identities send ${identities * recordsOfIdentity} records`,
        "has the key",
        "400,000 kept at most; honest records old and new are found, nobody is banned"
      )
    }))
})
