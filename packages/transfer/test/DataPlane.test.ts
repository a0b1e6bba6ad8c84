import { assert, describe, it } from "@effect/vitest"
import type { DataPlaneChoice } from "@spegel-ts/transfer/DataPlane"
import * as Connections from "@spegel-ts/transfer/internal/conformance/Connections"
import { descriptorOf } from "@spegel-ts/transfer/PeerSocket"
import { Transfer } from "@spegel-ts/transfer/Transfer"
import { Effect, Layer, Logger } from "effect"
import { TLSSocket } from "node:tls"

/** The plane that is chosen where so many runs were lost, what is remembered meanwhile and afterwards, and what is logged. */
const choose = Effect.fnUntraced(function*(plane: DataPlaneChoice, lost: number) {
  const remembered: Array<string> = []
  const logged: Array<string> = []
  const lostRuns = {
    count: Effect.succeed(lost),
    begun: Effect.sync(() => void remembered.push("begun")),
    closed: Effect.sync(() => void remembered.push("closed"))
  }
  const logger = Logger.make(({ logLevel, message }) => void logged.push(`${logLevel}: ${String(message)}`))
  const chosen = yield* Transfer.pipe(
    Effect.flatMap(({ plane }) => plane),
    Effect.tap(() => Effect.sync(() => void remembered.push("in use"))),
    Effect.provide(Layer.provide(Transfer.layer({ plane, lostRuns }), Logger.layer([logger])))
  )
  return { chosen, remembered, logged }
})

describe("the choice of a data plane", () => {
  it.live("is zero-copy, and remembers that it is in use", () =>
    Effect.gen(function*() {
      for (const lost of [0, 1]) {
        const { chosen, logged, remembered } = yield* choose("auto", lost)
        assert.strictEqual(chosen.name, "zero-copy")
        assert.deepStrictEqual(remembered, ["begun", "in use", "closed"])
        assert.deepStrictEqual(logged, ["Info: data plane: zero-copy"])
      }
    }))

  it.live("is portable after two runs that zero-copy ended", () =>
    Effect.gen(function*() {
      for (const plane of ["auto", "zero-copy"] as const) {
        const { chosen, logged, remembered } = yield* choose(plane, 2)
        assert.strictEqual(chosen.name, "portable")
        assert.include(chosen.reason, "2 runs in a row")
        // The next run may try again.
        assert.deepStrictEqual(remembered, ["in use", "closed"])
        assert.strictEqual(logged.length, 1)
        assert.isTrue(logged[0]?.startsWith("Warn"))
      }
    }))

  it.live("is portable where zero-copy does not work, and keeps nothing of the trial", () =>
    Effect.gen(function*() {
      const { arch } = process
      const { chosen, logged, remembered } = yield* Effect.acquireUseRelease(
        Effect.sync(() => Object.defineProperty(process, "arch", { value: "none" })),
        () => choose("auto", 0),
        () => Effect.sync(() => Object.defineProperty(process, "arch", { value: arch }))
      )
      assert.strictEqual(chosen.name, "portable")
      assert.include(chosen.reason, `koffi-${process.platform}-none`)
      assert.deepStrictEqual(remembered, ["begun", "closed", "in use"])
      assert.strictEqual(logged.length, 1)
    }))

  it.live("is portable if that is chosen, for no other reason", () =>
    Effect.gen(function*() {
      const { chosen, remembered } = yield* choose("portable", 0)
      assert.deepStrictEqual(chosen, { name: "portable", reason: undefined })
      assert.deepStrictEqual(remembered, ["in use"])
    }))

  it.live("leaves connections over TLS to Node", () =>
    Effect.gen(function*() {
      const { near } = yield* Connections.client
      assert.isAbove(descriptorOf(near) ?? -1, 2)
      assert.isUndefined(descriptorOf(new TLSSocket(near)))
    }).pipe(Effect.scoped))
})
