/**
 * Tells any number of subscribers of changes that a store notices itself, in bounded memory: a subscriber that falls
 * too far behind is told to list again.
 */
import { Array as Arr, Effect, Latch, PubSub, Stream } from "effect"
import { ContentChange } from "./ContentStore.ts"

/** A store publishes its changes; each subscriber has a stream of its own. */
export interface ChangeFeed {
  /** Tells all subscribers. Never waits: one that is too slow loses changes, and is told to list again. */
  readonly publish: (change: ContentChange) => Effect.Effect<void>
  /** What is published from the subscription on, after a first `Resync`. */
  readonly changes: Stream.Stream<ContentChange>
  /** The same together with `others`, which begin with a `Resync` of their own: that one comes first of all. */
  readonly changesWith: <E>(others: Stream.Stream<ContentChange, E>) => Stream.Stream<ContentChange, E>
}

const defaultCapacity = 4096

/** `capacity` is how many changes are kept for the slowest subscriber; default 4096. */
export const make = Effect.fnUntraced(function*(options?: { readonly capacity?: number }) {
  const published = yield* PubSub.sliding<readonly [position: number, change: ContentChange]>(
    options?.capacity ?? defaultCapacity
  )
  let next = 0

  const subscribe = Effect.map(PubSub.subscribe(published), (subscription) => {
    let expected = next
    return Stream.fromSubscription(subscription).pipe(
      // What was published together stays together: a burst costs its subscribers one turn.
      Stream.mapArray(Arr.flatMap(([position, change]): Arr.NonEmptyReadonlyArray<ContentChange> => {
        const isWhole = position === expected
        expected = position + 1
        return isWhole ? [change] : [ContentChange.Resync(), change]
      }))
    )
  })

  return {
    // Not `publishUnsafe`, which drops the newest when it is full: no later position would tell of that.
    publish: (change) => Effect.suspend(() => Effect.asVoid(PubSub.publish(published, [next++, change]))),
    changes: Stream.unwrap(Effect.map(
      subscribe,
      (stream) => Stream.concat(Stream.make(ContentChange.Resync()), stream)
    )),
    changesWith: (others) =>
      Stream.unwrap(Effect.gen(function*() {
        const own = yield* subscribe
        const begun = yield* Latch.make(false)
        return Stream.merge(others, Stream.unwrap(Effect.as(begun.await, own))).pipe(
          // Not `tap`, which takes apart what came together.
          Stream.mapArray((changes) => {
            begun.openUnsafe()
            return changes
          })
        )
      }))
  } satisfies ChangeFeed
})
