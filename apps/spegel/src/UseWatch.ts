/**
 * Compares what containerd pulls for the kubelet with what it asks this mirror for. The configuration cannot tell: 2.x
 * does not show it, and it may lie out of reach.
 *
 * A pull with which nothing was asked of this mirror can have its good reasons, such as a mirror that was not ready, so
 * that the kubelet's requests went to another node's. One is enough only where containerd has never asked.
 */
import type { KubeletPull } from "@spegel-ts/containerd/KubeletPulls"
import * as Reference from "@spegel-ts/oci/Reference"
import type { RegistryFilter } from "@spegel-ts/oci/RegistryFilter"
import * as MonotonicTime from "@spegel-ts/registry/MonotonicTime"
import type { PullEvent } from "@spegel-ts/registry/PullLedger"
import { Effect, Queue, Stream } from "effect"
import { type ContainerdFaults, ofConfiguration } from "./ContainerdFaults.ts"

export interface UseWatchOptions {
  readonly faults: typeof ContainerdFaults.Service
  readonly requests: Stream.Stream<PullEvent>
  /** Whether the mirror is ready to be asked. */
  readonly ready: Effect.Effect<boolean>
  /** Images that the mirror handles. */
  readonly filter: RegistryFilter
  /** Where the mirror's hosts.toml files are, as containerd is to be told. */
  readonly configPath: string
}

export interface UseWatch {
  readonly pulled: (pull: KubeletPull) => Effect.Effect<void>
  /** Runs until interrupted. */
  readonly run: Effect.Effect<void>
}

/** Requests of other pulls count until so long after a pull: one that falls to another node's mirror is no pattern. */
const patienceMillis = 20_000
/** A manifest is asked for before it is there. */
const leadMillis = 30_000
/** Pulls in a row without any request, where containerd has asked before. */
const enough = 3
const maxWaiting = 64
const look = "1 second"

export const make = Effect.fnUntraced(function*(
  { configPath, faults, filter, ready, requests }: UseWatchOptions
) {
  const waiting = yield* Queue.sliding<{ readonly pull: KubeletPull; readonly endedAt: number }>(maxWaiting)
  let readyAt = Infinity
  let askedAt = -Infinity
  let inARow = 0

  const untilReady = Effect.gen(function*() {
    while (!(yield* ready)) yield* Effect.sleep(look)
    readyAt = yield* MonotonicTime.millis
  })

  const listen = requests.pipe(
    Stream.filter(({ mirrored }) => !mirrored),
    Stream.runForEach(() =>
      Effect.gen(function*() {
        askedAt = yield* MonotonicTime.millis
        inARow = 0
        yield* faults.clear([...ofConfiguration, "NotAsked"], "containerd uses this mirror: it asks for images")
      })
    )
  )

  const judge = Effect.gen(function*() {
    const { endedAt, pull } = yield* Queue.take(waiting)
    yield* Effect.sleep(Math.max(0, endedAt + patienceMillis - (yield* MonotonicTime.millis)))
    if (askedAt >= pull.fetchedAt - leadMillis) return
    inARow++
    if (inARow < (askedAt === -Infinity ? 1 : enough)) return
    const known = yield* faults.known
    // The cause has been told.
    if (ofConfiguration.some((reason) => known.has(reason))) return
    yield* faults.raise(
      "NotAsked",
      `containerd does not use this mirror: it pulled ${Reference.print(pull.reference)} without asking it: ` +
        `set config_path in containerd's configuration to ${configPath}, and to no second directory beside it, restart ` +
        "containerd, and check that the mirror's address in hosts.toml there can be reached from the node"
    )
  })

  return {
    pulled: Effect.fnUntraced(function*(pull) {
      if (!filter(pull.reference)) return
      if (pull.keepsLayers._tag === "Some") {
        yield* pull.keepsLayers.value
          ? faults.clear(["LayersDiscarded"], "containerd keeps layers again: this node gives them to peers")
          : faults.raise(
            "LayersDiscarded",
            `containerd discards layers once they are unpacked, as those of ${Reference.print(pull.reference)}: ` +
              "this node cannot give them to peers: set discard_unpacked_layers = false in containerd's configuration, " +
              "and restart containerd"
          )
      }
      if (pull.fetchedAt < readyAt) return
      yield* Queue.offer(waiting, { pull, endedAt: yield* MonotonicTime.millis })
    }),
    run: Effect.asVoid(
      Effect.all([Effect.andThen(untilReady, Effect.forever(judge)), listen], { concurrency: "unbounded" })
    )
  } satisfies UseWatch
})
