/** The tests that every layer of `Transfer` must pass. Needs `@effect/vitest`; import it from tests only. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, Random, Result, Scope } from "effect"
import * as Connections from "./internal/conformance/Connections.ts"
import * as Content from "./internal/conformance/Content.ts"
import { endingSuite } from "./internal/conformance/EndingSuite.ts"
import * as Holdings from "./internal/conformance/Holdings.ts"
import { movingSuite } from "./internal/conformance/MovingSuite.ts"
import {
  ending,
  fileSource,
  large,
  moving,
  receiving,
  sending,
  type Test,
  until
} from "./internal/conformance/Trials.ts"
import { Progress } from "./Progress.ts"
import type { Transfer } from "./Transfer.ts"

/** Defines the suite for a layer, under its name. */
export const transferConformance = (name: string, layer: Layer.Layer<Transfer, unknown>) => {
  /** A test that leaves no descriptor and no thread behind. */
  const test: Test = (title, body) =>
    it.live(title, () =>
      Effect.gen(function*() {
        const before = yield* Holdings.look
        yield* body.pipe(Effect.scoped, Effect.provide(layer), Random.withSeed(title))
        assert.deepStrictEqual(yield* Holdings.leftOver(before), [])
      }))

  describe(`Transfer of ${name}`, { timeout: 60_000 }, () => {
    movingSuite(test)
    endingSuite(test)

    it.live("aborts bodies when it is closed, and leaves nothing", () =>
      Effect.gen(function*() {
        const before = yield* Holdings.look
        yield* Effect.gen(function*() {
          const scope = yield* Scope.make()
          const services = yield* Layer.buildWithScope(Layer.fresh(layer), scope)
          const handle = yield* Content.file
          const bodies = yield* Effect.forEach(Array.from({ length: 16 }, (_, index) => index), (index) =>
            Effect.gen(function*() {
              const client = yield* Connections.client
              receiving(client, large).pause()
              const source = index % 2 === 0
                ? fileSource(handle, large)
                : yield* sending(yield* Connections.peer, large)
              const progress = new Progress()
              const fiber = yield* moving(client, source, large.length, progress).pipe(
                Effect.provide(services),
                Effect.forkChild
              )
              return { progress, fiber }
            }))
          for (const { progress } of bodies) {
            yield* until(() =>
              progress.moved > 100_000
            )
          }
          yield* Scope.close(scope, Exit.void)
          for (const { fiber } of bodies) {
            const result = yield* ending(fiber)
            assert.strictEqual(Result.isFailure(result) && result.failure._tag, "TransferAborted")
          }
        }).pipe(Effect.scoped)
        assert.deepStrictEqual(yield* Holdings.leftOver(before), [])
      }))
  })
}
