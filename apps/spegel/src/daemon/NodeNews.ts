/** The log lines that an operator wants to read: what a node advertises, and that peers fail. Few lines, however much happens. */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import { failuresOf, isFailed, type PullEvent } from "@spegel-ts/registry/PullLog"
import type { Snapshot } from "@spegel-ts/state-tracker/StateTracker"
import { Effect, Stream } from "effect"

const look = "2 seconds"
/** The shortest time between two lines about what is advertised. */
const quietMillis = 30_000
/** Failures within this time share a line. */
const gather = "5 seconds"
const maxGathered = 1000
const maxReasons = 3

/** Logs how much is advertised, each time that changes. Runs until interrupted. */
export const followAdvertised = Effect.fnUntraced(function*(snapshot: Effect.Effect<Snapshot>) {
  let told = "advertising 0 images (0 digests)"
  let quietUntil = -Infinity
  while (true) {
    yield* Effect.sleep(look)
    const now = yield* MonotonicTime.millis
    if (now < quietUntil) continue
    const { digests, images } = yield* snapshot
    const count = [...images.values()].reduce((sum, images) => sum + images, 0)
    const line = `advertising ${count} ${count === 1 ? "image" : "images"} (${digests} digests)`
    if (line === told) continue
    yield* Effect.logInfo(line)
    told = line
    quietUntil = now + quietMillis
  }
})

const reasonsOf = ({ attempts }: PullEvent): string => failuresOf(attempts).slice(0, maxReasons).join("; ")

/** Warns about requests that peers failed. Runs until interrupted. */
export const followFailures = (events: Stream.Stream<PullEvent>): Effect.Effect<void> =>
  events.pipe(
    Stream.filter(isFailed),
    Stream.groupedWithin(maxGathered, gather),
    Stream.runForEach((failures) => {
      const last = failures.at(-1)
      if (last === undefined) return Effect.void
      const requests = failures.length === 1 ? "a request" : `${failures.length} requests`
      return Effect.logWarning(`peers failed ${requests}: upstream serves the rest`).pipe(
        Effect.annotateLogs({ content: last.content, reasons: reasonsOf(last) })
      )
    })
  )
