/** What an operator wants to read in the log of a node that works, and of one whose peers do not: few lines, however much happens. */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import { failuresOf, type PullEvent } from "@spegel-ts/registry/PullLog"
import type { Snapshot } from "@spegel-ts/state-tracker/StateTracker"
import { Effect, Stream } from "effect"

const look = "2 seconds"
/** Between two lines about what is advertised. */
const quietMillis = 30_000
/** Failures of so long are told of in one line. */
const gather = "5 seconds"
const maxGathered = 1000
const maxReasons = 3

/** Says how much is advertised, whenever it is something else than before. Runs until interrupted. */
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

/** A pull that peers began, or should have begun, and did not bring to its end. */
const isFailure = ({ peersFailed, status }: PullEvent): boolean => peersFailed > 0 && (status === 0 || status >= 400)

const reasonsOf = ({ attempts }: PullEvent): string => failuresOf(attempts).slice(0, maxReasons).join("; ")

/** Warns of pulls that peers have failed. Runs until interrupted. */
export const followFailures = (events: Stream.Stream<PullEvent>): Effect.Effect<void> =>
  events.pipe(
    Stream.filter(isFailure),
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
