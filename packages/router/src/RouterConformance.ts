/** What every layer of `Router` must do, as tests to run over routers of one network. Needs vitest. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schedule, type Scope, Stream } from "effect"
import * as ContentKey from "./ContentKey.ts"
import type { Router } from "./Router.ts"

type RouterService = typeof Router.Service

/** Runs the suite; `make` starts a network of three routers, stopped with the scope. */
export const routerConformance = (
  name: string,
  make: Effect.Effect<readonly [RouterService, RouterService, RouterService], unknown, Scope.Scope>
) => {
  const key = ContentKey.make("sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
  const tag = ContentKey.make("registry.example:5000/team/app:v1")
  const find = (router: RouterService, key: ContentKey.ContentKey, count = 10) =>
    Stream.runCollect(router.lookup(key, { count }))

  /** Networks need a moment: repeats until the ids found are those expected, and fails with the last ones seen. */
  const eventually = (router: RouterService, key: ContentKey.ContentKey, expected: ReadonlyArray<RouterService>) =>
    Effect.gen(function*() {
      const ids = yield* Effect.forEach(expected, (router) => Effect.map(router.self, ({ id }) => id))
      const found = yield* Effect.map(find(router, key), (peers) => peers.map(({ id }) => id))
      assert.deepStrictEqual(found.toSorted(), ids.toSorted())
    }).pipe(
      Effect.catchDefect((defect) => Effect.fail(defect)),
      Effect.retry({ schedule: Schedule.spaced("100 millis"), times: 100 })
    )

  const test = (
    title: string,
    body: (routers: readonly [RouterService, RouterService, RouterService]) => Effect.Effect<void, unknown, Scope.Scope>
  ) =>
    it.live(title, () =>
      Effect.gen(function*() {
        const routers = yield* make
        yield* Effect.forEach(routers, (router) =>
          router.ready.pipe(
            Effect.filterOrFail((ready) => ready, () => "not ready" as const),
            Effect.retry({ schedule: Schedule.spaced("50 millis"), times: 200 })
          ))
        yield* body(routers)
      }))

  describe(`Router ${name}`, { timeout: 60_000 }, () => {
    test("finds who advertised, and never itself", ([a, b, c]) =>
      Effect.gen(function*() {
        yield* a.advertise([key, tag])
        yield* eventually(b, key, [a])
        yield* eventually(c, tag, [a])
        yield* eventually(a, key, [])
        yield* b.advertise([key])
        yield* eventually(c, key, [a, b])
        yield* eventually(a, key, [b])
      }))

    test("names each holder once, and no more than asked for", ([a, b, c]) =>
      Effect.gen(function*() {
        yield* a.advertise([key])
        yield* a.advertise([key])
        yield* b.advertise([key])
        yield* eventually(c, key, [a, b])
        assert.strictEqual((yield* find(c, key, 1)).length, 1)
      }))

    test("says where a holder's registry is", ([a, b]) =>
      Effect.gen(function*() {
        yield* a.advertise([key])
        yield* eventually(b, key, [a])
        const [peer] = yield* find(b, key)
        const self = yield* a.self
        assert.strictEqual(peer?.servicePort, self.servicePort)
        assert.isTrue(peer?.addresses.every((address) => self.addresses.includes(address)))
        assert.isNotEmpty(peer?.addresses)
      }))

    test("finds nobody for a key that nobody advertised", ([a]) =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* find(a, ContentKey.make("registry.example/absent:v1")), [])
      }))

    test("does not offer what was withdrawn again", ([a, b]) =>
      Effect.gen(function*() {
        yield* a.advertise([key])
        yield* a.withdraw([key])
        yield* a.withdraw([key])
        yield* b.advertise([key])
        yield* eventually(a, key, [b])
      }))

    test("names nobody who has left, whatever that one advertises since, and lets it look up", ([a, b, c]) =>
      Effect.gen(function*() {
        yield* a.advertise([key])
        yield* b.advertise([key])
        yield* eventually(c, key, [a, b])
        yield* a.leave
        yield* a.leave
        yield* a.advertise([tag])
        yield* eventually(c, key, [b])
        yield* eventually(c, tag, [])
        yield* eventually(a, key, [b])
      }))

    test("knows the other members", ([a, b, c]) =>
      Effect.gen(function*() {
        const others = yield* Effect.forEach([b, c], (router) => Effect.map(router.self, ({ id }) => id))
        yield* a.peers.pipe(
          Effect.filterOrFail((peers) => others.every((id) => peers.some((peer) => peer.id === id)), () => "unknown"),
          Effect.retry({ schedule: Schedule.spaced("100 millis"), times: 100 })
        )
      }))
  })
}
