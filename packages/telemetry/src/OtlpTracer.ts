/** A tracer that exports what belongs to a request. Loaded only where there is a collector. */
import { Effect, Option, type Scope } from "effect"
import * as Hex from "effect/encoding/Hex"
import * as Tracer from "effect/Tracer"
import type { TraceExport } from "./OtelEnvironment.ts"
import { ExportedSpan, PassedOverSpan } from "./OtlpSpan.ts"
import * as SpanExporter from "./SpanExporter.ts"

/** A span of another tracer, such as one that the program began before it had this one, is no part of a trace. */
const isOwn = (span: Tracer.Span): boolean => span instanceof ExportedSpan || span instanceof PassedOverSpan

/**
 * A trace begins with a span of kind `server`, or goes on from another process. What else runs (refreshing records,
 * watching the store) is not part of any, and is not recorded.
 *
 * Within a trace the spans of `spanNames` are exported. Others, such as those of `Effect.fn` in libraries, are passed
 * over, and what is below them belongs to the span above.
 */
export const make = Effect.fnUntraced(function*(
  settings: TraceExport,
  options: SpanExporter.ExporterOptions
): Effect.fn.Return<Tracer.Tracer, never, Scope.Scope> {
  const { push } = yield* SpanExporter.make(settings, options)
  return Tracer.make({
    span: (span) => {
      const parent = Option.getOrUndefined(span.parent)
      const traceId = parent?.traceId ?? Hex.random(32)
      const sampled = parent?._tag === "Span"
        ? isOwn(parent) && span.sampled
        : span.kind === "server" && settings.sampler(traceId, parent)
      if (!sampled) return new Tracer.NativeSpan({ ...span, sampled })
      const isExported = span.kind === "server" || options.spanNames?.has(span.name) !== false
      return isExported || parent === undefined
        ? new ExportedSpan({ ...span, sampled }, traceId, push)
        : new PassedOverSpan({ ...span, sampled }, parent)
    }
  })
})
