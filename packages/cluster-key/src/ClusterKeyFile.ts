/** The file with the cluster's keys. It is read again each minute, so that a key is replaced without a restart. */
import * as Background from "@spegel-ts/background/Background"
import { Data, Duration, Effect, Option, Schedule, type Scope, Stream, SubscriptionRef } from "effect"
import { open } from "node:fs/promises"
import { KeyRing } from "./KeyRing.ts"

/** The file cannot be read, or has a line that is not a key. At the start, the node does not run. */
export class ClusterKeyUnreadable extends Data.TaggedError("ClusterKeyUnreadable")<{
  readonly path: string
  readonly reason: string
}> {
  override get message() {
    return `cluster key ${this.path}: ${this.reason}`
  }
}

/** In bytes; the largest file that is read. */
const maxFileSize = 4096
const defaultInterval = Duration.minutes(1)

/** Keys that may change. */
export interface ClusterKeys {
  /** The keys now. Costs nothing: each request asks it. */
  readonly ring: () => KeyRing
  /** The keys now, and those of each later change. */
  readonly changes: Stream.Stream<KeyRing>
}

/** Keys that never change. */
export const constant = (ring: KeyRing): ClusterKeys => ({ ring: () => ring, changes: Stream.make(ring) })

/**
 * The keys of a file while the scope is open, read again at each `interval` (default 1 minute). If the file becomes unreadable, or
 * has a line that is not a key, the keys stay as they were, and a warning says so.
 */
export const follow = Effect.fn("ClusterKeyFile.follow")(function*(options: {
  readonly path: string
  readonly interval?: Duration.Duration
}): Effect.fn.Return<ClusterKeys, ClusterKeyUnreadable, Scope.Scope> {
  const { interval = defaultInterval, path } = options
  const current = yield* SubscriptionRef.make(yield* load(path))
  const readAgain = Effect.gen(function*() {
    const ring = yield* load(path)
    if (ring.equals(SubscriptionRef.getUnsafe(current))) return
    yield* SubscriptionRef.set(current, ring)
    yield* Effect.logInfo("the cluster key file has changed").pipe(
      Effect.annotateLogs({ path, keys: ring.ids("router").join(", ") })
    )
  })
  const { failed, works } = yield* Background.health("cluster key file", { distinctReasons: 16 })
  const round = Effect.matchCauseEffect(readAgain, { onFailure: failed, onSuccess: () => works })
  yield* Background.keepRunning("cluster key", Effect.repeat(Effect.delay(round, interval), Schedule.forever))
  return { ring: () => SubscriptionRef.getUnsafe(current), changes: SubscriptionRef.changes(current) }
})

/** Reads a file of keys. Fails if it is not one; the message has no part of its text. */
export const load = Effect.fn("ClusterKeyFile.load")(function*(
  path: string
): Effect.fn.Return<KeyRing, ClusterKeyUnreadable> {
  const text = yield* Effect.tryPromise({
    try: () => readSmall(path),
    catch: (cause) => new ClusterKeyUnreadable({ path, reason: cause instanceof Error ? cause.message : String(cause) })
  })
  if (Option.isNone(text)) {
    return yield* new ClusterKeyUnreadable({ path, reason: `it is larger than ${maxFileSize} bytes` })
  }
  return yield* Effect.mapError(
    Effect.fromResult(KeyRing.parse(text.value)),
    ({ message }) => new ClusterKeyUnreadable({ path, reason: message })
  )
})

const readSmall = async (path: string): Promise<Option.Option<string>> => {
  await using file = await open(path)
  const { buffer, bytesRead } = await file.read(Buffer.alloc(maxFileSize + 1), 0, maxFileSize + 1, 0)
  return bytesRead > maxFileSize ? Option.none() : Option.some(buffer.toString("utf8", 0, bytesRead))
}
