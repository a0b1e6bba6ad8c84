/**
 * Makes spans only if somebody records them: a span that nobody records costs a microsecond and more. If
 * `TracerEnabled` is false there are none, and a trace that is not sampled has few. A span lasts as long as its body; no byte
 * moves through one.
 */
import { Effect } from "effect"

export type Attributes = Readonly<Record<string, unknown>>

/** Runs `traced` if spans are made, otherwise `plain`. */
export const whereTraced = <A, E, R, A2, E2, R2>(
  traced: () => Effect.Effect<A, E, R>,
  plain: Effect.Effect<A2, E2, R2>
): Effect.Effect<A | A2, E | E2, R | R2> =>
  Effect.withFiber<A | A2, E | E2, R | R2>(({ cache }) => cache.tracerEnabled ? traced() : plain)

/** Runs `recorded` if the current span is sampled, otherwise `plain`. */
export const whereRecorded = <A, E, R, A2, E2, R2>(
  recorded: () => Effect.Effect<A, E, R>,
  plain: Effect.Effect<A2, E2, R2>
): Effect.Effect<A | A2, E | E2, R | R2> =>
  Effect.withFiber<A | A2, E | E2, R | R2>(({ cache: { span, tracerEnabled } }) =>
    tracerEnabled && span?._tag === "Span" && span.sampled ? recorded() : plain
  )

/** Adds attributes to the current span, if it is recorded. */
export const annotate = (attributes: () => Attributes): Effect.Effect<void> =>
  whereRecorded(() => Effect.annotateCurrentSpan(attributes()), Effect.void)

export const inSpan = (name: string, attributes?: Attributes) => <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.withSpan(effect, name, { captureStackTrace: false, attributes })
