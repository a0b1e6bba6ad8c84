/** What each request for content came to: who served it, how much, how fast, and why not. Bounded, in memory. */
import { Context, Effect, Layer, PubSub, Stream } from "effect"

/** One finished request. */
export interface PullEvent {
  /** Milliseconds since the epoch at which the request came. */
  readonly time: number
  readonly method: "GET" | "HEAD"
  readonly registry: string
  /** The digest, or `registry/repository:tag`. */
  readonly content: string
  /** `local`, a peer's id, or `none`. */
  readonly source: string
  /** HTTP status; 0 where the client or the source went away in the body. */
  readonly status: number
  /** Body bytes that were to be sent. */
  readonly bytes: number
  readonly millis: number
  /** Peers that were tried in vain and why, or why there was no answer. */
  readonly reasons: ReadonlyArray<string>
}

export class PullLedger extends Context.Service<PullLedger, {
  readonly record: (event: PullEvent) => Effect.Effect<void>
  /** The last requests, the newest first. */
  readonly recent: Effect.Effect<ReadonlyArray<PullEvent>>
  /** Requests from now on; a slow reader misses the oldest. */
  readonly events: Stream.Stream<PullEvent>
}>()("@spegel-ts/registry/PullLedger") {}

const capacity = 512

export const layer: Layer.Layer<PullLedger> = Layer.effect(
  PullLedger,
  Effect.gen(function*() {
    const recent: Array<PullEvent> = []
    const events = yield* PubSub.sliding<PullEvent>(capacity)
    return PullLedger.of({
      record: (event) =>
        Effect.suspend(() => {
          recent.unshift(event)
          if (recent.length > capacity) recent.pop()
          return Effect.asVoid(PubSub.publish(events, event))
        }),
      recent: Effect.sync(() => [...recent]),
      events: Stream.fromPubSub(events)
    })
  })
)
