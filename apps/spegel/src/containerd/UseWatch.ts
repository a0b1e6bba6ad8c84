/**
 * Compares what containerd pulls for the kubelet with what it asks this mirror for. We cannot rely on the
 * configuration: 2.x does not report it, and its file may be out of reach.
 *
 * A pull without a request to this mirror can be harmless: while this mirror starts, a Service may send the request to
 * another node's mirror, or during an upgrade to the previous mirror on this node. So one such pull is enough only if
 * containerd has never asked and no previous mirror can have served it; otherwise it takes several in a row.
 */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import type { KubeletPull } from "@spegel-ts/containerd/KubeletPulls"
import * as Reference from "@spegel-ts/oci/Reference"
import type { RegistryFilter } from "@spegel-ts/oci/RegistryFilter"
import type { PullEvent } from "@spegel-ts/registry/PullLog"
import { Effect, Queue, Stream } from "effect"
import { type ContainerdFaults, unused } from "./ContainerdFaults.ts"

export interface UseWatchOptions {
  readonly faults: typeof ContainerdFaults.Service
  readonly requests: Stream.Stream<PullEvent>
  /** Whether a mirror has run on this node before. In an upgrade it may serve for a while beside this one. */
  readonly hasPredecessor: boolean
  /** Whether the mirror is ready to be asked. */
  readonly ready: Effect.Effect<boolean>
  /** Images that the mirror handles. */
  readonly filter: RegistryFilter
  /** The directory of the mirror's hosts.toml files, as containerd should know it. */
  readonly configPath: string
}

export interface UseWatch {
  readonly pulled: (pull: KubeletPull) => Effect.Effect<void>
  /** Runs until interrupted. */
  readonly run: Effect.Effect<void>
}

/**
 * A request up to this long after a pull, even for another image, shows that containerd uses this mirror. kube-proxy
 * may learn of a new mirror only after the first pulls.
 */
const patienceMillis = 30_000
/** A pull may have asked for its manifest up to this long before it was stored. */
const leadMillis = 30_000
/** A Service may send pulls to the previous mirror up to this long after this one is ready. */
const settlingMillis = 15_000
/** How many pulls in a row without a request count, if one alone may have gone elsewhere. */
const enough = 3
const maxWaiting = 64
const look = "1 second"

export const make = Effect.fnUntraced(function*(
  { configPath, faults, filter, hasPredecessor, ready, requests }: UseWatchOptions
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
        yield* faults.clear(unused, "containerd uses this mirror: it asks for images")
      })
    )
  )

  const judge = Effect.gen(function*() {
    const { endedAt, pull } = yield* Queue.take(waiting)
    yield* Effect.sleep(Math.max(0, endedAt + patienceMillis - (yield* MonotonicTime.millis)))
    if (askedAt >= pull.fetchedAt - leadMillis) return
    inARow++
    const isSettled = !hasPredecessor || pull.fetchedAt > readyAt + settlingMillis
    if (inARow < (isSettled && askedAt === -Infinity ? 1 : enough)) return
    const known = yield* faults.known
    // The cause is known, and has been logged.
    if (unused.some((reason) => known.has(reason))) return
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
          ? faults.clear(["LayersDiscarded"], "containerd keeps layers: this node can give them to peers")
          : faults.raise(
            "LayersDiscarded",
            `containerd discards layers once they are unpacked, as those of ${Reference.print(pull.reference)}: ` +
              "this node cannot give them to peers: set discard_unpacked_layers = false and config_path to one directory in " +
              "containerd's configuration, and restart containerd"
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
