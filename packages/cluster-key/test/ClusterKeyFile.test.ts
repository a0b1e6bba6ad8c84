import { assert, describe, it } from "@effect/vitest"
import * as ClusterKeyFile from "@spegel-ts/cluster-key/ClusterKeyFile"
import { generate } from "@spegel-ts/cluster-key/KeyRing"
import * as PeerAuth from "@spegel-ts/cluster-key/PeerAuth"
import { eventually } from "@spegel-ts/testing/Eventually"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Duration, Effect, Fiber, Stream } from "effect"
import { rename, writeFile } from "node:fs/promises"
import { join } from "node:path"

const write = (path: string, text: string) =>
  Effect.promise(async () => {
    await writeFile(`${path}.new`, text, { mode: 0o600 })
    await rename(`${path}.new`, path)
  })

describe("ClusterKeyFile", () => {
  it.live("follows a file that changes, and keeps its keys while it is broken", () =>
    Effect.gen(function*() {
      const path = join(yield* temporary, "key")
      const [older, newer] = [generate(), generate()]
      yield* write(path, older)
      const keys = yield* ClusterKeyFile.follow({ path, interval: Duration.millis(10) })
      const changes = yield* keys.changes.pipe(Stream.take(2), Stream.runCollect, Effect.forkScoped)
      const [id = ""] = keys.ring().ids("router")
      yield* write(path, "broken")
      yield* Effect.sleep("50 millis")
      assert.deepStrictEqual(keys.ring().ids("router"), [id])
      yield* write(path, `${newer}\n${older}\n`)
      yield* eventually(() => keys.ring().ids("router").length === 2)
      assert.strictEqual(keys.ring().ids("router")[1], id)
      const seen = yield* Fiber.join(changes)
      assert.deepStrictEqual(seen.map((ring) => ring.ids("router").length), [1, 2])
    }))

  it.live("says what is wrong with a file, without its text", () =>
    Effect.gen(function*() {
      const path = join(yield* temporary, "key")
      const messageOf = Effect.map(Effect.flip(ClusterKeyFile.load(path)), ({ message }) => message)
      assert.match(yield* messageOf, /^cluster key .*key: ENOENT/)
      yield* write(path, "hunter2")
      const message = yield* messageOf
      assert.match(message, /line 1 is not a key: expected 32 random bytes/)
      assert.notInclude(message, "hunter2")
      yield* write(path, `${generate()}\n`.repeat(200))
      assert.match(yield* messageOf, /larger than 4096 bytes/)
    }))

  it.effect("is off where no layer says otherwise", () =>
    Effect.gen(function*() {
      assert.strictEqual((yield* PeerAuth.PeerAuth).mode, "off")
    }))
})
