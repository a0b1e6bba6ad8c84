/** Promises of libraries that fail with nobody waiting for them. Node would end the process for one. */
import * as Background from "@spegel-ts/background/Background"
import { Cause, Effect } from "effect"

/** While the scope is open, they are counted and logged. */
export const watch = Effect.gen(function*() {
  const { failed } = yield* Background.health("promise", { distinctReasons: 16 })
  const fork = Effect.runForkWith(yield* Effect.context<never>())
  const listener = (reason: unknown) => void fork(failed(Cause.die(reason)))
  yield* Effect.acquireRelease(
    Effect.sync(() => process.on("unhandledRejection", listener)),
    () => Effect.sync(() => process.off("unhandledRejection", listener))
  )
})
