/**
 * Counts each span in metrics, as exported or as dropped, and bounds the spans that wait. One WARN says that the export fails,
 * one INFO that it works again; nobody waits for it.
 */
import { type ExportResult, ExportResultCode } from "@opentelemetry/core"
import type { SpanExporter, SpanProcessor } from "@opentelemetry/sdk-trace-base"
import * as Background from "@spegel-ts/background/Background"
import * as MetricFamily from "@spegel-ts/background/MetricFamily"
import { Cause, type Duration, Effect, Metric } from "effect"

const exported = Metric.counter("spegel_trace_spans_exported_total", {
  description: "Spans that the collector took",
  incremental: true
})
const dropped = Metric.counter("spegel_trace_spans_dropped_total", {
  description: "Spans that were not exported, because the queue was full or the collector failed",
  incremental: true
})

export interface ExportHealth {
  /** Reports a connection that could not be made: the SDK retries those in silence. Never throws. */
  readonly connectionFailed: (error: Error) => void
  /** Counts what `exporter` achieves. The returned exporter always succeeds: failures are reported here. */
  readonly watch: (exporter: SpanExporter) => SpanExporter
  /** Drops spans that `processor` has no room for. It must pass its spans to the exporter that is watched. */
  readonly bound: (processor: SpanProcessor) => SpanProcessor
  /** Runs `shutdown` for `timeout` at most. Spans that are not sent by then are dropped. */
  readonly close: (shutdown: () => Promise<void>, timeout: Duration.Duration) => Effect.Effect<void>
}

/** The reason in an exporter's error. HTTP/2 has no status text: then it is the number of the status. */
const reasonOf = (error: (Error & { readonly code?: unknown }) | undefined): string => {
  if (error === undefined) return "unexpected failure"
  return error.name === "OTLPExporterError" && typeof error.code === "number" ? `answered ${error.code}` : error.message
}

/** `collector` is named in reports. */
export const make = Effect.fnUntraced(function*(
  { collector, maxQueueSize }: { readonly collector: string; readonly maxQueueSize: number }
): Effect.fn.Return<ExportHealth> {
  const { failed, works } = yield* Background.health("trace export")
  const fork = Effect.runForkWith(yield* Effect.context())
  yield* MetricFamily.exist([exported, dropped])
  let waiting = 0
  let sending = 0
  /** Spans that found the queue full, since the last batch. */
  let overflow = 0
  let closed = false

  const complain = (reason: string) => failed(Cause.fail(new Error(reason)))
  const drop = (count: number, reason: string) =>
    Effect.andThen(Metric.update(dropped, count), complain(`${count} spans were dropped: ${reason}`))

  const begun = (count: number) => {
    waiting -= count
    sending += count
    if (overflow === 0) return
    fork(drop(overflow, `${collector} takes fewer than there are; OTEL_BSP_MAX_QUEUE_SIZE is ${maxQueueSize}`))
    overflow = 0
  }
  const ended = (count: number, { code, error }: ExportResult) => {
    if (closed) return
    sending -= count
    fork(
      code === ExportResultCode.SUCCESS
        ? Effect.andThen(Metric.update(exported, count), overflow > 0 ? Effect.void : works)
        : drop(count, `${collector}: ${reasonOf(error)}`)
    )
  }
  return {
    connectionFailed: ({ message }) => void fork(complain(`${collector}: ${message}`)),
    watch: (exporter) => ({
      export(spans, done) {
        begun(spans.length)
        const settle = (result: ExportResult) => {
          ended(spans.length, result)
          done({ code: ExportResultCode.SUCCESS })
        }
        try {
          exporter.export(spans, settle)
        } catch (error) {
          settle({ code: ExportResultCode.FAILED, error: error instanceof Error ? error : new Error(String(error)) })
        }
      },
      shutdown: () => exporter.shutdown()
    }),
    bound: (processor) => ({
      onStart: (span, context) => processor.onStart(span, context),
      onEnd(span) {
        if (waiting >= maxQueueSize) overflow++
        else {
          waiting++
          processor.onEnd(span)
        }
      },
      forceFlush: () => processor.forceFlush(),
      shutdown: () => processor.shutdown()
    }),
    close: (shutdown, timeout) =>
      Effect.gen(function*() {
        yield* Effect.tryPromise(shutdown).pipe(Effect.ignore, Effect.interruptible, Effect.timeoutOption(timeout))
        closed = true
        const left = waiting + sending + overflow
        if (left > 0) yield* drop(left, "no time was left at shutdown")
      })
  }
})
