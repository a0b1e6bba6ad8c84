/** Tells the router of what has come and gone, in batches, for as long as it takes until the router takes them. */
import * as ContentKey from "@spegel-ts/router/ContentKey"
import { Router, type RouterNotReady } from "@spegel-ts/router/Router"
import { Duration, Effect, Latch, Schedule } from "effect"
import type { Holdings } from "./Holdings.ts"

/** Changes that come within this time are told to the router together. */
const batchWindow = Duration.millis(50)
/** Pause after the router was told, while changes collect: telling it costs as much as several keys. */
const tellingRest = Duration.millis(200)
/** Keys that a router is offered until it takes some: it may not be ready for a while. */
const firstKeys = 100

/** A router joins its network in its own time. */
const untilReady = Schedule.jittered(
  Schedule.min([Schedule.exponential("100 millis", 1.3), Schedule.spaced("1 second")])
)

export interface Advertiser {
  /** There may be something to tell. */
  readonly wake: Effect.Effect<unknown>
  /** Tells the router whenever there is something to tell. */
  readonly run: Effect.Effect<never, RouterNotReady>
}

/** `told` runs after the router was told of everything in `holdings`. */
export const make = Effect.fnUntraced(function*(holdings: Holdings, told: Effect.Effect<void>) {
  const router = yield* Router
  const awake = yield* Latch.make(true)
  let isReady = false
  let isWaiting = false

  /** Tells the router of all that it has not been told of, changes that come meanwhile included. */
  const tell = Effect.gen(function*() {
    while (!holdings.isTold) {
      const untold = holdings.next(isReady ? Infinity : firstKeys)
      yield* router.withdraw(untold.gone.map(ContentKey.make)).pipe(
        Effect.andThen(untold.held.length === 0 ? Effect.void : router.advertise(untold.held.map(ContentKey.make))),
        Effect.onError(() => Effect.sync(() => holdings.failed(untold)))
      )
      isReady ||= untold.held.length > 0
    }
    yield* told
  })
  const sayThatItWaits = ({ message }: RouterNotReady) =>
    Effect.suspend(() => {
      if (isWaiting) return Effect.void
      isWaiting = true
      return Effect.logInfo(`${message}: advertising waits`)
    })

  return {
    wake: awake.open,
    run: awake.await.pipe(
      Effect.andThen(Effect.sleep(batchWindow)),
      Effect.andThen(awake.close),
      Effect.andThen(tell.pipe(Effect.tapErrorTag("RouterNotReady", sayThatItWaits), Effect.retry(untilReady))),
      Effect.andThen(Effect.sync(() => {
        isWaiting = false
      })),
      Effect.andThen(Effect.sleep(tellingRest)),
      Effect.onError(() => awake.open),
      Effect.forever
    )
  } satisfies Advertiser
})
