/** Promises of libraries that fail with nobody waiting for them. Node would end the process for one. */
import * as Background from "@spegel-ts/background/Background"
import { Effect } from "effect"

/** While the scope is open, they are counted and logged. */
export const watch = Effect.gen(function*() {
  const report = yield* Background.reporter("promise")
  yield* Effect.acquireRelease(
    Effect.sync(() => process.on("unhandledRejection", report)),
    () => Effect.sync(() => process.off("unhandledRejection", report))
  )
})
