/** The span of a wait for other nodes' downloads. */
import { Effect, Option } from "effect"
import { spans } from "../../PullSpans.ts"
import { whereRecorded } from "./Recording.ts"

/** `none` is the end of a wait in vain. */
export const wait = <A, E, R>(waiting: Effect.Effect<Option.Option<A>, E, R>): Effect.Effect<Option.Option<A>, E, R> =>
  whereRecorded(
    () =>
      Effect.useSpan(
        spans.wait,
        { attributes: { "spegel.ended": "interrupted" } },
        (span) =>
          Effect.tap(
            waiting,
            (won) => Effect.sync(() => span.attribute("spegel.ended", Option.isSome(won) ? "served" : "given up"))
          )
      ),
    waiting
  )
