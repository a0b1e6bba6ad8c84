import { assert, describe, it } from "@effect/vitest"
import { routerConformance } from "@spegel-ts/router/RouterConformance"
import { freePort } from "@spegel-ts/testing/network/FreePort"
import { Effect, Queue, Schedule, Stream } from "effect"
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { startRouter } from "./StartRouter.ts"

const temporary = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "router-"))),
  (directory) => Effect.promise(() => rm(directory, { recursive: true, force: true }))
)

routerConformance(
  "over libp2p",
  Effect.gen(function*() {
    const port = yield* freePort
    const peers = [`127.0.0.2:${port}`]
    return [
      yield* startRouter("127.0.0.2", port, { peers }),
      yield* startRouter("127.0.0.3", port, { peers }),
      yield* startRouter("127.0.0.4", port, { peers })
    ] as const
  })
)

describe("Libp2p", () => {
  it.live("says that its port is in use", () =>
    Effect.gen(function*() {
      const port = yield* freePort
      yield* startRouter("127.0.0.2", port)
      const error = yield* Effect.flip(startRouter("127.0.0.2", port))
      assert.strictEqual(error._tag, "RouterListenFailed")
      assert.include(error.message, `127.0.0.2:${port}: the port is in use`)
    }))

  it.live("keeps its identity in the data directory, readable by its owner alone", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporary
      const port = yield* freePort
      const id = Effect.scoped(Effect.flatMap(startRouter("127.0.0.2", port, { dataDir }), (router) => router.self))
      const before = yield* id
      const after = yield* id
      assert.strictEqual(before.id, after.id)
      const path = join(dataDir, "private.key")
      assert.strictEqual((yield* Effect.promise(() => stat(path))).mode & 0o777, 0o600)
      assert.include(yield* Effect.promise(() => readFile(path, "utf8")), "-----BEGIN PRIVATE KEY-----")
    }))

  it.live("starts with an identity in memory if the key file is not a key", () =>
    Effect.gen(function*() {
      const dataDir = yield* temporary
      yield* Effect.promise(() => writeFile(join(dataDir, "private.key"), "not a key"))
      const router = yield* startRouter("127.0.0.2", yield* freePort, { dataDir })
      assert.match((yield* router.self).id, /^12D3Koo/)
    }))

  it.live("dials a peer that a source has just named, although it has others", () =>
    Effect.gen(function*() {
      const port = yield* freePort
      const newcomers = yield* Queue.unbounded<void>()
      let newcomer: ReadonlyArray<string> = []
      const first = yield* startRouter("127.0.0.2", port, {
        bootstrap: { addresses: Effect.sync(() => newcomer), changes: Stream.fromQueue(newcomers) }
      })
      yield* startRouter("127.0.0.3", port, { peers: [`127.0.0.2:${port}`] })
      const knows = (count: number) =>
        first.peers.pipe(
          Effect.filterOrFail(({ length }) => length === count, ({ length }) => `${length} peers`),
          Effect.retry({ schedule: Schedule.spaced("100 millis"), times: 200 })
        )
      yield* knows(1)
      // Like a new leader, it knows nobody and nobody knows it.
      yield* startRouter("127.0.0.4", port)
      newcomer = [`/ip4/127.0.0.4/tcp/${port}`]
      yield* Queue.offer(newcomers, undefined)
      yield* knows(2)
    }), 40_000)

  it.live("announces a loopback address only if it listens on one", () =>
    Effect.gen(function*() {
      const everywhere = yield* startRouter(undefined, yield* freePort)
      assert.isFalse(
        (yield* everywhere.self).addresses.some((address) => address.startsWith("127.") || address === "::1")
      )
      const there = yield* startRouter("127.0.0.2", yield* freePort)
      assert.deepStrictEqual((yield* there.self).addresses, ["127.0.0.2"])
    }))

  it.live("leaves no socket behind", () =>
    Effect.gen(function*() {
      const sockets = Effect.sync(() =>
        process.getActiveResourcesInfo().filter((name) => name === "TCPSocketWrap" || name === "TCPServerWrap").length
      )
      const until = (expected: (count: number) => boolean) =>
        sockets.pipe(
          Effect.filterOrFail(expected, (count) => `${count} sockets`),
          Effect.retry({ schedule: Schedule.spaced("50 millis"), times: 400 })
        )
      // Sockets of earlier tests may still be closing.
      yield* until((count) => count === 0)
      const port = yield* freePort
      yield* Effect.scoped(Effect.gen(function*() {
        yield* startRouter("127.0.0.2", port)
        yield* startRouter("127.0.0.3", port, { peers: [`127.0.0.2:${port}`] })
        // Two listen, and each has an end of their connection.
        yield* until((count) => count >= 4)
      }))
      yield* until((count) => count === 0)
    }))
})
