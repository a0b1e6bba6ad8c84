/** Tells the router, in batches, which keys have come and gone. Tries until the router accepts them. */
import * as ContentKey from "@spegel-ts/router/ContentKey"
import { Router, type RouterNotReady } from "@spegel-ts/router/Router"
import { Duration, Effect, Latch, Schedule } from "effect"
import type { Holdings } from "./Holdings.ts"

/** Changes within this time are told together. */
const batchWindow = Duration.millis(50)
/** Pause after each batch, so that changes collect: a batch costs as much as several keys. */
const tellingRest = Duration.millis(200)
/** How many keys to offer until the router accepts some, because it may not be ready for a while. */
const firstKeys = 100

/** When to try again while the router joins its network. */
const untilReady = Schedule.jittered(
  Schedule.min([Schedule.exponential("100 millis", 1.3), Schedule.spaced("1 second")])
)

export interface Advertiser {
  /** There may be something to tell. */
  readonly wake: Effect.Effect<unknown>
  /** Tells the router whenever there is something to tell. */
  readonly run: Effect.Effect<never, RouterNotReady>
}

/** `told` runs whenever the router has been told everything. */
export const make = Effect.fnUntraced(function*(holdings: Holdings, told: Effect.Effect<void>) {
  const router = yield* Router
  const awake = yield* Latch.make(true)
  let isReady = false
  let isWaiting = false

  /** Tells the router all that it has not been told, including changes that come meanwhile. */
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
