/** A span of Effect as OTLP has it (opentelemetry-proto, trace/v1). */
import { Cause, type Exit, Option } from "effect"
import { entriesToAttributes } from "effect/observability/OtlpResource"
import type { ScopeSpan } from "effect/observability/OtlpTracer"
import * as Tracer from "effect/Tracer"

export type OtlpSpan = ScopeSpan["spans"][number]

/** Request lines and header values are as long as a client likes. */
const maxTextLength = 1024

const kinds = { internal: 1, server: 2, client: 3, producer: 4, consumer: 5 } as const
const status = { unset: 0, error: 2 } as const

const bounded = (value: unknown): unknown =>
  typeof value === "string" && value.length > maxTextLength ? `${value.slice(0, maxTextLength)}...` : value

/** What `error.type` and the status' message are; nothing where the span ended well or was interrupted. */
const failureOf = (
  exit: Exit.Exit<unknown, unknown>
): Option.Option<{ readonly type: string; readonly message: string }> => {
  if (exit._tag === "Success" || Cause.hasInterruptsOnly(exit.cause)) return Option.none()
  const error = Cause.squash(exit.cause)
  const type = typeof error === "object" && error !== null && "_tag" in error ? String(error._tag) : "_OTHER"
  return Option.some({ type, message: error instanceof Error ? error.message : String(error) })
}

/** A span that hands itself over when it ends. */
export class ExportedSpan extends Tracer.NativeSpan {
  readonly #onEnd: (span: ExportedSpan) => void

  constructor(
    options: ConstructorParameters<typeof Tracer.NativeSpan>[0],
    traceId: string,
    onEnd: (span: ExportedSpan) => void
  ) {
    super(options)
    this._traceId = traceId
    this.#onEnd = onEnd
  }

  override end(endTime: bigint, exit: Exit.Exit<unknown, unknown>): void {
    if (this.status._tag === "Ended") return
    super.end(endTime, exit)
    this.#onEnd(this)
  }
}

/** A span that is not exported: what is below it takes it for the one above. */
export class PassedOverSpan extends Tracer.NativeSpan {
  constructor(options: ConstructorParameters<typeof Tracer.NativeSpan>[0], above: Tracer.AnySpan) {
    super(options)
    this._traceId = above.traceId
    this._spanId = above.spanId
  }
}

/** An ended span. A status is set only for failures, as the specification advises; `error.type` tells which. */
export const make = (span: ExportedSpan): OtlpSpan => {
  if (span.status._tag !== "Ended") throw new Error(`span ${span.name} has not ended`)
  const { endTime, exit, startTime } = span.status
  const failure = failureOf(exit)
  const attributes = new Map(span.attributes)
  if (Option.isSome(failure)) attributes.set("error.type", failure.value.type)
  const entries = (values: Iterable<readonly [string, unknown]>) =>
    entriesToAttributes([...values].map(([key, value]) => [key, bounded(value)]))
  return {
    traceId: span.traceId,
    spanId: span.spanId,
    parentSpanId: Option.getOrUndefined(span.parent)?.spanId,
    name: span.name,
    kind: kinds[span.kind],
    startTimeUnixNano: String(startTime),
    endTimeUnixNano: String(endTime),
    attributes: entries(attributes),
    droppedAttributesCount: 0,
    events: span.events.map(([name, time, values]) => ({
      name,
      timeUnixNano: String(time),
      attributes: entries(Object.entries(values)),
      droppedAttributesCount: 0
    })),
    droppedEventsCount: 0,
    status: attributes.has("error.type")
      ? { code: status.error, message: Option.match(failure, { onNone: () => "", onSome: ({ message }) => message }) }
      : { code: status.unset },
    links: [],
    droppedLinksCount: 0
  }
}
