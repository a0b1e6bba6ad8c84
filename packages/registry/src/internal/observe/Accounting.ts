/** Tells metrics, spans, the log of pulls and the debug log how a request ended. */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import { Effect, LogLevel, Option } from "effect"
import type { IncomingMessage, ServerResponse } from "node:http"
import * as ContentId from "../../ContentId.ts"
import { type PullEvent, PullLog } from "../../PullLog.ts"
import * as Answer from "../serve/Answer.ts"
import { tagOf } from "../serve/ContentExchange.ts"
import { handlerOf, type RegistryRequest } from "../serve/RegistryRequest.ts"
import { PullRecord } from "./PullRecord.ts"
import * as RegistryMetrics from "./RegistryMetrics.ts"
import * as RequestSpans from "./RequestSpans.ts"

/** A request and what is known of it when it ends. */
export interface Ended {
  readonly asked: RegistryRequest
  readonly incoming: IncomingMessage
  readonly response: ServerResponse
  readonly record: PullRecord
  /** When it began, as `MonotonicTime` has it. */
  readonly started: number
}

export interface Times {
  /** The time of day at the end, in milliseconds since the epoch. */
  readonly time: number
  /** The beginning and the end, as `MonotonicTime` has them. */
  readonly started: number
  readonly ended: number
}

const eventOf = (
  request: ContentId.ContentRequest,
  record: PullRecord,
  answer: Answer.Answer,
  { ended, started, time }: Times
): PullEvent => {
  const registry = Option.getOrElse(request.namespace, () => "")
  const tag = tagOf(request)
  return {
    time: time - (ended - started),
    method: request.method,
    mirrored: request.mirrored,
    registry,
    content: ContentId.print(ContentId.of(request, {
      registry,
      repository: request.repository,
      ...(tag === undefined ? {} : { tag })
    })),
    range: request.range,
    source: record.source ?? Answer.sourceOf(answer),
    status: Answer.statusOf(answer),
    bytes: answer.bytes,
    firstByteMillis: (record.headTime ?? ended) - started,
    millis: ended - started,
    peersSeen: record.peersSeen,
    attempts: record.attempts,
    peersFailed: record.peersFailed,
    reason: Answer.reasonOf(answer) ?? ""
  }
}

const logged = (event: PullEvent, { incoming, record }: Ended) => {
  // A log line has a time of its own.
  const { time, ...facts } = event
  return Effect.logDebug("request").pipe(Effect.annotateLogs({
    ...facts,
    began: new Date(time).toISOString(),
    url: incoming.url ?? "",
    attempts: record.failures.join("; ")
  }))
}

export const make = Effect.gen(function*() {
  const log = yield* PullLog
  const context = yield* Effect.context()

  /** Counts content that was sent. An interrupted body counts with what the client took of it. */
  const countServed = (
    { mirrored }: ContentId.ContentRequest,
    record: PullRecord,
    answer: Answer.Answer,
    bytes: number
  ) => {
    if (answer._tag === "Refused") return
    RegistryMetrics.servedUnsafe({
      source: record.source !== undefined || answer.source?._tag === "Peer" ? "peer" : "local",
      client: mirrored ? "peer" : "node",
      bytes,
      relayed: record.source === undefined ? 0 : record.bytesTaken
    }, context)
  }

  const pulled = (
    request: ContentId.ContentRequest,
    event: PullEvent,
    ended: Ended,
    answer: Answer.Answer,
    sent: number
  ) =>
    RequestSpans.pulled(event).pipe(
      Effect.andThen(Effect.sync(() => countServed(request, ended.record, answer, sent))),
      Effect.andThen(log.record(event)),
      Effect.andThen(Effect.when(Effect.suspend(() => logged(event, ended)), LogLevel.isEnabled("Debug")))
    )

  return {
    /** A request has ended with `answer`. Only pulls are recorded in the log: not what strangers ask for in vain. */
    ended: (request: Ended, answer: Answer.Answer, isPull: boolean): Effect.Effect<void> =>
      Effect.clockWith((clock) => {
        const { asked, incoming, record, response, started } = request
        const { method = "" } = incoming
        const times = { time: clock.currentTimeMillisUnsafe(), started, ended: MonotonicTime.millisUnsafe(clock) }
        const sent = method === "HEAD" ? 0 : answer._tag === "Interrupted" ? record.bytesTaken : answer.bytes
        const counted = Effect.andThen(
          RequestSpans.answered(answer, incoming, response),
          Effect.sync(() =>
            RegistryMetrics.answeredUnsafe({
              handler: handlerOf(asked),
              method,
              status: Answer.statusOf(answer),
              bytes: sent,
              millis: times.ended - started
            }, context)
          )
        )
        if (asked._tag !== "Content" || !isPull) return counted
        const event = eventOf(asked.request, record, answer, times)
        return Effect.asVoid(Effect.andThen(counted, pulled(asked.request, event, request, answer, sent)))
      }),

    /** A request was answered again with this many bytes, at once and without spans. */
    repeatedUnsafe: (request: ContentId.ContentRequest, bytes: number, times: Times): void => {
      const answer: Answer.Answer = { _tag: "Served", status: 200, bytes, source: Answer.local }
      const event = eventOf(request, new PullRecord(), answer, times)
      const { method, millis, status } = event
      RegistryMetrics.answeredUnsafe({ handler: handlerOf(request), method, status, bytes, millis }, context)
      RegistryMetrics.servedUnsafe({ source: "local", client: "node", bytes, relayed: 0 }, context)
      log.recordUnsafe(event)
    }
  }
})

export type Accounting = Effect.Success<typeof make>
