import { assert, describe, it } from "@effect/vitest"
import * as Digest from "@spegel-ts/oci/Digest"
import * as Warnings from "@spegel-ts/registry/Warnings"
import * as MemoryRouter from "@spegel-ts/router/MemoryRouter"
import { Router, RouterNotReady, Standing } from "@spegel-ts/router/Router"
import { Context, Duration, Effect, Fiber, Layer, Stream } from "effect"
import * as TestClock from "effect/testing/TestClock"

const resolveTimeout = Duration.millis(20)
const digest = Digest.ofBytes(Buffer.from("a layer"))
const peer = (index: number) => ({ id: `node-${index}`, addresses: [`10.0.0.${index}`], registryPort: 5000 })

/** A node of a network in memory that warns and hears. */
const join = Effect.fnUntraced(function*(network: MemoryRouter.Network, index: number) {
  const context = yield* Layer.build(Layer.fresh(MemoryRouter.layer({ network, self: peer(index) })))
  return yield* Warnings.make({ resolveTimeout }).pipe(Effect.provideService(Router, Context.get(context, Router)))
})

/** What is given is advertised by fibers of its own. */
const given = TestClock.adjust(0)

describe("Warnings", () => {
  it.effect("are heard by others, of this peer and this content only, for an hour", () =>
    Effect.gen(function*() {
      const network = MemoryRouter.network()
      const [deceived, other] = [yield* join(network, 1), yield* join(network, 2)]
      assert.isFalse(yield* other.heard(peer(3), digest))
      yield* deceived.give([peer(3)], digest)
      yield* given
      assert.isTrue(yield* other.heard(peer(3), digest))
      assert.isFalse(yield* other.heard(peer(4), digest))
      assert.isFalse(yield* other.heard(peer(3), Digest.ofBytes(Buffer.from("another"))))
      yield* TestClock.adjust("59 minutes")
      yield* deceived.give([peer(3)], digest)
      assert.isTrue(yield* other.heard(peer(3), digest))
      yield* TestClock.adjust("1 minute")
      assert.isFalse(yield* other.heard(peer(3), digest))
    }))

  it.effect("are of all peers of whom one lied", () =>
    Effect.gen(function*() {
      const network = MemoryRouter.network()
      const [deceived, other] = [yield* join(network, 1), yield* join(network, 2)]
      yield* deceived.give([peer(3), peer(4)], digest)
      yield* given
      assert.deepStrictEqual(
        yield* Effect.forEach([3, 4, 5], (index) => other.heard(peer(index), digest)),
        [true, true, false]
      )
    }))

  it.effect("are a thousand at most", () =>
    Effect.gen(function*() {
      const network = MemoryRouter.network()
      const deceived = yield* join(network, 1)
      yield* deceived.give(Array.from({ length: 1100 }, (_, index) => peer(index)), digest)
      yield* given
      assert.strictEqual(network.providers.size, 1000)
      yield* TestClock.adjust("1 hour")
      yield* deceived.give([peer(1)], digest)
      yield* given
      assert.strictEqual([...network.providers.values()].filter(({ size }) => size > 0).length, 1)
    }))

  it.effect("are waited for no longer than the time, and missed where the router cannot tell", () =>
    Effect.gen(function*() {
      const { heard } = yield* Warnings.make({ resolveTimeout })
      const fiber = yield* Effect.forkChild(heard(peer(3), digest))
      yield* TestClock.adjust("99 millis")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.isFalse(yield* Fiber.join(fiber))
      assert.isFalse(yield* heard(peer(4), digest))
    }).pipe(Effect.provideService(
      Router,
      Router.of({
        advertise: () => Effect.void,
        withdraw: () => Effect.void,
        leave: Effect.void,
        lookup: (key) =>
          key.endsWith("node-3") ? Stream.never : Stream.fail(new RouterNotReady({ reason: "it is alone" })),
        ready: Effect.succeed(false),
        standing: Effect.succeed(Standing.Joined({ peers: 1 })),
        peers: Effect.succeed([]),
        self: Effect.succeed(peer(1))
      })
    )))
})
