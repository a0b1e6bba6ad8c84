/**
 * Decides which spans are recorded, and how a span ends.
 *
 * A trace begins with a span of kind `server`, or goes on from another process. Other work (refreshing records, watching
 * the store) is not part of a trace, and is not recorded. Within a trace the spans that are named are recorded. Others, such as
 * those of `Effect.fn` in libraries, are passed over, and what is below them belongs to the span above.
 */
import * as OtelTracer from "@effect/opentelemetry/OtelTracer"
import * as Otel from "@opentelemetry/api"
import { Cause, Effect, type Exit, Option } from "effect"
import * as Tracer from "effect/Tracer"

type SpanOptions = Parameters<Tracer.Tracer["span"]>[0]

/** A span of @effect/opentelemetry; its class is not exported. */
interface RecordedSpan extends Tracer.Span {
  readonly span: Otel.Span
  status: Tracer.SpanStatus
  end: Tracer.Span["end"]
}

/** A span that is not recorded, within a trace that is: what is below it takes it for the one above. */
class PassedOverSpan extends Tracer.NativeSpan {
  constructor(options: SpanOptions, above: Tracer.AnySpan) {
    super(options)
    this._traceId = above.traceId
    this._spanId = above.spanId
  }
}

/** Whether a span is of this tracer. Others, such as those that the program began before it had this one, are left out. */
const isOwn = (span: Tracer.AnySpan): boolean => "span" in span || span instanceof PassedOverSpan

/** The values of `error.type` and of the status' message; undefined if the span ended well or was interrupted. */
const failureOf = (
  exit: Exit.Exit<unknown, unknown>
): { readonly type: string; readonly message: string } | undefined => {
  if (exit._tag === "Success" || Cause.hasInterruptsOnly(exit.cause)) return undefined
  const error = Cause.squash(exit.cause)
  const type = typeof error === "object" && error !== null && "_tag" in error ? String(error._tag) : "_OTHER"
  return { type, message: error instanceof Error ? error.message : String(error) }
}

const nanosOfSecond = 1_000_000_000n

/**
 * Ends a span as the semantic conventions say: a failure sets `error.type` and the status, success leaves the status unset.
 * @effect/opentelemetry would set the status Ok, also over an `error.type` of the request's own, and add an event with
 * the stack for each failure.
 */
const endByConvention = (span: RecordedSpan): Tracer.Span => {
  span.end = (endTime, exit) => {
    if (span.status._tag === "Ended") return
    const failure = failureOf(exit)
    if (failure !== undefined) span.attribute("error.type", failure.type)
    if (span.attributes.has("error.type")) {
      span.span.setStatus({ code: Otel.SpanStatusCode.ERROR, message: failure?.message ?? "" })
    }
    span.status = { _tag: "Ended", startTime: span.status.startTime, endTime, exit }
    span.span.end([Number(endTime / nanosOfSecond), Number(endTime % nanosOfSecond)])
  }
  return span
}

/**
 * Spans of `tracer` for requests, and for the spans within them that `spanNames` lists; by default all. Whether a
 * trace is recorded is decided by the tracer's sampler, at its root. OpenTelemetry's own context is not kept: that costs
 * something at each step of each fiber, and only libraries with instrumentation read it.
 */
export const make = (
  tracer: Otel.Tracer,
  spanNames: ReadonlySet<string> | undefined
): Effect.Effect<Tracer.Tracer> =>
  OtelTracer.make.pipe(
    Effect.provideService(OtelTracer.OtelTracer, tracer),
    Effect.map((recording) =>
      Tracer.make({
        span: (options) => {
          const parent = Option.getOrUndefined(options.parent)
          const isPart = parent?._tag === "Span" ? isOwn(parent) && parent.sampled : options.kind === "server"
          if (!isPart) return new Tracer.NativeSpan({ ...options, sampled: false })
          const isNamed = options.kind === "server" || spanNames?.has(options.name) !== false
          return isNamed || parent === undefined
            ? endByConvention(recording.span(options) as RecordedSpan)
            : new PassedOverSpan({ ...options, sampled: true }, parent)
        }
      })
    )
  )
