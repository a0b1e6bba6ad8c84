import { assert, describe, it } from "@effect/vitest"
import { freePort } from "@spegel-ts/testing/network/FreePort"
import { Effect, Logger, Metric, Schedule } from "effect"
import { cp, mkdtemp, rm } from "node:fs/promises"
import { connect, createServer, type Server } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { startRouter } from "../StartRouter.ts"

const temporary = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "clones-"))),
  (directory) => Effect.promise(() => rm(directory, { recursive: true, force: true }))
)

/** Data directories of a machine and its clone, from a version that did not record the owner of an identity. */
const clones = Effect.gen(function*() {
  const [first, second] = [yield* temporary, yield* temporary]
  const { id } = yield* Effect.scoped(
    Effect.flatMap(startRouter("127.0.0.2", yield* freePort, { dataDir: first }), (router) => router.self)
  )
  yield* Effect.promise(async () => {
    await rm(join(first, "private.key.owner"))
    await cp(first, second, { recursive: true })
  })
  return { first, second, id }
})

/** Forwards connections, as a service's address does. */
const detour = (host: string, port: number, target: string) =>
  Effect.acquireRelease(
    Effect.callback<{ connections: number; readonly server: Server }>((resume) => {
      const server = createServer((client) => {
        state.connections++
        const onward = connect(port, target)
        client.pipe(onward)
        onward.pipe(client)
        client.on("error", () => onward.destroy())
        onward.on("error", () => client.destroy())
      })
      const state = { connections: 0, server }
      server.listen(port, host, () => resume(Effect.succeed(state)))
    }),
    ({ server }) => Effect.sync(() => server.close())
  )

/** A logger that collects warnings. */
const listen = () => {
  const warnings: Array<string> = []
  const logger = Logger.make(({ logLevel, message }) => {
    if (logLevel === "Warn") warnings.push(String(message))
  })
  return { warnings, layer: Logger.layer([logger]) }
}

const until = (done: () => boolean, what: () => string) =>
  Effect.sync(done).pipe(
    Effect.filterOrFail((done) => done, what),
    Effect.retry({ schedule: Schedule.spaced("50 millis"), times: 300 })
  )

const conflicts = (kind: string) =>
  Effect.map(
    Metric.snapshot,
    (metrics) =>
      metrics.flatMap((metric) =>
        metric.id === "spegel_router_identity_conflicts_total" && metric.attributes?.["kind"] === kind &&
          "count" in metric.state
          ? Number(metric.state.count)
          : []
      )[0]
  )

describe("two nodes with one identity", { timeout: 60_000 }, () => {
  it.live("notice each other, warn once, and count it", () =>
    Effect.gen(function*() {
      const { first, second } = yield* clones
      const port = yield* freePort
      const peers = [`127.0.0.2:${port}`, `127.0.0.3:${port}`]
      const [a, b] = [listen(), listen()]
      yield* startRouter("127.0.0.2", port, { dataDir: first, peers }).pipe(Effect.provide(a.layer))
      const before = yield* conflicts("own")
      assert.isDefined(before)
      yield* startRouter("127.0.0.3", port, { dataDir: second, peers }).pipe(Effect.provide(b.layer))
      const said = ({ warnings }: typeof a) => warnings.filter((line) => line.includes("has this node's identity"))
      for (const node of [a, b]) {
        yield* until(() => said(node).length > 0, () => `not noticed: ${node.warnings.join("\n")}`)
        assert.include(said(node)[0], "private.key")
      }
      const counted = (yield* conflicts("own")) ?? 0
      assert.isAtLeast(counted, (before ?? 0) + 2)
      // They keep looking for peers, and meet again.
      yield* Effect.repeat(conflicts("own"), {
        schedule: Schedule.spaced("50 millis"),
        until: (now) => (now ?? 0) >= counted + 2
      })
      for (const node of [a, b]) assert.strictEqual(said(node).length, 1, node.warnings.join("\n"))
    }))

  it.live("are told apart by a third node, which warns", () =>
    Effect.gen(function*() {
      const { first, id, second } = yield* clones
      const port = yield* freePort
      const third = listen()
      const router = yield* startRouter("127.0.0.4", port).pipe(Effect.provide(third.layer))
      const before = (yield* conflicts("member")) ?? 0
      const peers = [`127.0.0.4:${port}`]
      yield* startRouter("127.0.0.2", port, { dataDir: first, peers })
      yield* router.peers.pipe(
        Effect.repeat({
          schedule: Schedule.spaced("50 millis"),
          until: (found) => found.some((peer) => peer.id === id)
        })
      )
      assert.deepStrictEqual(third.warnings, [])
      yield* startRouter("127.0.0.3", port, { dataDir: second, peers })
      yield* until(() => third.warnings.length > 0, () => "not noticed")
      assert.include(third.warnings[0], "two nodes have one identity")
      assert.strictEqual(yield* conflicts("member"), before + 1)
    }))

  it.live("are not reported if a node meets itself, or comes back at another address", () =>
    Effect.gen(function*() {
      const { first, id } = yield* clones
      const port = yield* freePort
      const third = listen()
      const router = yield* startRouter("127.0.0.4", port).pipe(Effect.provide(third.layer))
      const before = [yield* conflicts("own"), yield* conflicts("member")]
      const peers = [`127.0.0.4:${port}`]
      const at = (address: string) =>
        router.peers.pipe(Effect.repeat({
          schedule: Schedule.spaced("50 millis"),
          until: (found) => found.some((peer) => peer.id === id && peer.addresses.includes(address))
        }))
      yield* Effect.scoped(Effect.andThen(startRouter("127.0.0.2", port, { dataDir: first, peers }), at("127.0.0.2")))
      yield* startRouter("127.0.0.3", port, { dataDir: first, peers })
      yield* at("127.0.0.3")
      assert.deepStrictEqual(third.warnings, [])
      // Through a forwarder that looks like another node's address.
      const mirror = yield* detour("127.0.0.9", port, "127.0.0.5")
      const self = listen()
      yield* startRouter("127.0.0.5", port, { peers: [`127.0.0.9:${port}`] }).pipe(Effect.provide(self.layer))
      yield* until(() => mirror.connections > 1, () => "it did not meet itself")
      assert.deepStrictEqual(self.warnings, [])
      assert.deepStrictEqual([yield* conflicts("own"), yield* conflicts("member")], before)
    }))
})
