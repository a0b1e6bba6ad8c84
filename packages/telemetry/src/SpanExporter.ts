/**
 * Sends ended spans to a collector over OTLP, in batches. Never in the way of what it tells of: a bounded queue takes
 * spans at once, and drops them where the collector does not keep up.
 *
 * The encoders are Effect's. Its exporter has no bound on what is under way, and where a collector fails it drops what comes
 * in the next minute without a word.
 */
import * as Background from "@spegel-ts/background/Background"
import { Cause, type Duration, Effect, Fiber, Metric, type Scope } from "effect"
import * as OtlpResource from "effect/observability/OtlpResource"
import * as OtlpSerialization from "effect/observability/OtlpSerialization"
import type { TraceExport } from "./OtelEnvironment.ts"
import * as OtlpClient from "./OtlpClient.ts"
import * as OtlpSpan from "./OtlpSpan.ts"

const exported = Metric.counter("spegel_trace_spans_exported_total", {
  description: "Spans that the collector took",
  incremental: true
})
const dropped = Metric.counter("spegel_trace_spans_dropped_total", {
  description: "Spans that were not exported, because the queue was full or the collector failed",
  incremental: true
})

const outOfTime = "no time was left at shutdown"

export interface SpanExporter {
  /** Takes a span, or drops it where too many wait. */
  readonly push: (span: OtlpSpan.ExportedSpan) => void
}

export interface ExporterOptions {
  readonly version: string
  /** Names of the spans within a request that are exported, beside the request's own; all where not given. */
  readonly spanNames?: ReadonlySet<string>
  /** How long what is left may take to be sent when the scope closes. */
  readonly flushTimeout: Duration.Duration
}

/** Sends what is pushed while the scope is open, and the rest when it closes. */
export const make = Effect.fnUntraced(function*(
  settings: TraceExport,
  options: ExporterOptions
): Effect.fn.Return<SpanExporter, never, Scope.Scope> {
  const { maxBatchSize, maxQueueSize, scheduleDelay, url } = settings
  const resource = OtlpResource.make({ attributes: settings.attributes })
  const scope = { name: "spegel-ts", version: options.version }
  const { traces: encode } = yield* OtlpSerialization.OtlpSerialization.pipe(Effect.provide(
    settings.protocol === "http/json" ? OtlpSerialization.layerJson : OtlpSerialization.layerProtobuf
  ))
  const { failed, works } = yield* Background.health("trace export")
  const complain = (reason: string) => failed(Cause.fail(new Error(reason)))
  const post = yield* OtlpClient.make(settings, {
    userAgent: `spegel-ts/${options.version}`,
    onRetry: ({ message }) => complain(`${url.origin}: ${message}`)
  })
  yield* Metric.update(exported, 0)
  yield* Metric.update(dropped, 0)

  const queue: Array<OtlpSpan.ExportedSpan> = []
  /** Spans that found the queue full, since the last batch. */
  let overflow = 0
  let wake = () => {}
  let closing = false

  const filled = Effect.callback<void>((resume) => {
    if (queue.length >= maxBatchSize) return resume(Effect.void)
    wake = () => resume(Effect.void)
  })

  const encoded = (batch: ReadonlyArray<OtlpSpan.ExportedSpan>) =>
    encode({ resourceSpans: [{ resource, scopeSpans: [{ scope, spans: batch.map(OtlpSpan.make) }] }] })

  const drop = (count: number, reason: string) =>
    Effect.andThen(Metric.update(dropped, count), complain(`${count} spans were dropped: ${reason}`))

  const sendBatch = Effect.gen(function*() {
    const count = overflow
    overflow = 0
    if (count > 0) {
      yield* drop(count, `${url.origin} takes fewer than there are; OTEL_BSP_MAX_QUEUE_SIZE is ${maxQueueSize}`)
    }
    const batch = queue.splice(0, maxBatchSize)
    if (batch.length === 0) return
    yield* Effect.suspend(() => post(encoded(batch))).pipe(
      Effect.andThen(Metric.update(exported, batch.length)),
      Effect.andThen(count > 0 ? Effect.void : works),
      Effect.catch(({ message }) => drop(batch.length, `${url.origin}: ${message}`)),
      Effect.catchDefect((defect) => drop(batch.length, `unexpected failure: ${String(defect)}`)),
      Effect.onInterrupt(() => drop(batch.length, outOfTime))
    )
  })

  const run = Effect.suspend(() =>
    closing ? sendBatch : Effect.andThen(Effect.timeoutOption(filled, scheduleDelay), sendBatch)
  ).pipe(Effect.repeat({ until: () => closing && queue.length === 0 }))
  yield* Effect.acquireRelease(Effect.forkDetach(run), (running) =>
    Effect.gen(function*() {
      closing = true
      wake()
      yield* Fiber.await(running).pipe(Effect.interruptible, Effect.timeoutOption(options.flushTimeout))
      yield* Fiber.interrupt(running)
      if (queue.length > 0) yield* drop(queue.length, outOfTime)
    }))
  return {
    push: (span) => {
      if (queue.length >= maxQueueSize) overflow++
      else if (queue.push(span) >= maxBatchSize) wake()
    }
  }
})
