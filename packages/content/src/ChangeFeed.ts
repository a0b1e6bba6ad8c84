/**
 * Publishes the changes of a store to any number of subscribers, in bounded memory: a subscriber that falls too far
 * behind is told to list again.
 */
import { Array as Arr, Effect, Latch, PubSub, Stream } from "effect"
import { ContentChange } from "./ContentStore.ts"

/** A store publishes its changes; each subscriber has a stream of its own. */
export interface ChangeFeed {
  /** Never waits for a subscriber. */
  readonly publish: (change: ContentChange) => Effect.Effect<void>
  /** A `Resync`, then what is published after the subscription. */
  readonly changes: Stream.Stream<ContentChange>
  /** The same merged with `others`, whose own first `Resync` comes first of all. */
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
      // Keeps batches together: a burst costs its subscribers one turn.
      Stream.mapArray(Arr.flatMap(([position, change]): Arr.NonEmptyReadonlyArray<ContentChange> => {
        const isWhole = position === expected
        expected = position + 1
        return isWhole ? [change] : [ContentChange.Resync(), change]
      }))
    )
  })

  return {
    // Not `publishUnsafe`: when full it drops the newest, and no later position would show the loss.
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
          // Not `tap`, which takes batches apart.
          Stream.mapArray((changes) => {
            begun.openUnsafe()
            return changes
          })
        )
      }))
  } satisfies ChangeFeed
})
