/** Promises of libraries that are rejected without a handler, for which Node would end the process. */
import * as Background from "@spegel-ts/background/Background"
import { Effect } from "effect"

/** Counts and logs them while the scope is open. */
export const watch = Effect.gen(function*() {
  const report = yield* Background.reporter("promise")
  yield* Effect.acquireRelease(
    Effect.sync(() => process.on("unhandledRejection", report)),
    () => Effect.sync(() => process.off("unhandledRejection", report))
  )
})
