/** The registry's metrics, under Spegel's names. Label sets are bound once, and there is a bound on how many. */
import { Clock, type Context, Effect, Metric } from "effect"

const durationBoundaries = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]
const sizeBoundaries = [100, 1000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000]

const mirrorRequests = Metric.counter("spegel_mirror_requests_total", {
  description: "Requests for content that this node lacked, by whether a peer served them",
  incremental: true
})
const lastSuccess = Metric.gauge("spegel_mirror_last_success_timestamp_seconds", {
  description: "When a peer last served a request of this node"
})
const corruptions = Metric.counter("spegel_mirror_corruptions_total", {
  description: "Wrong bytes received, by the peer that sent them",
  incremental: true
})
const peerFailures = Metric.counter("spegel_mirror_peer_failures_total", {
  description: "Peers that were left for another or for upstream, by what they did",
  incremental: true
})
const ingestsDiscarded = Metric.counter("spegel_mirror_ingests_discarded_total", {
  description: "Downloads of containerd that were discarded because of wrong bytes",
  incremental: true
})
const circuitOpenings = Metric.counter("spegel_mirror_circuit_openings_total", {
  description: "How often a registry's peers got little time because they kept requests waiting",
  incremental: true
})
const requestDuration = Metric.histogram("http_request_duration_seconds", {
  description: "How long requests took, body included",
  boundaries: durationBoundaries
})
const responseSize = Metric.histogram("http_response_size_bytes", {
  description: "Size of response bodies",
  boundaries: sizeBoundaries
})
const inflight = Metric.gauge("http_requests_inflight", { description: "Requests being answered" })

/** Values of a label beyond this many are counted together, so that a client cannot make series without end. */
const maxSeries = 200

const bound = <Input, State>(metric: Metric.Metric<Input, State>) => {
  const series = new Map<string, Metric.Metric<Input, State>>()
  return (attributes: Record<string, string>): Metric.Metric<Input, State> => {
    const key = Object.values(attributes).join("\n")
    const known = series.get(key)
    if (known !== undefined) return known
    const full = series.size >= maxSeries
    const made = Metric.withAttributes(
      metric,
      full ? Object.fromEntries(Object.keys(attributes).map((name) => [name, "other"])) : attributes
    )
    if (!full) series.set(key, made)
    return made
  }
}

const mirrorRequestsBy = bound(mirrorRequests)
const corruptionsBy = bound(corruptions)
const peerFailuresBy = bound(peerFailures)
const circuitOpeningsBy = bound(circuitOpenings)
const requestDurationBy = bound(requestDuration)
const responseSizeBy = bound(responseSize)
const inflightBy = bound(inflight)

/** Makes the series that alerts ask for, so that they are there before anything happened. */
export const initialise: Effect.Effect<void> = Metric.update(lastSuccess, 0)

/** Counts a mirrored request: `hit` when a peer served it. */
export const mirrored = (registry: string, hit: boolean): Effect.Effect<void> =>
  Effect.andThen(
    Metric.update(mirrorRequestsBy({ registry, cache: hit ? "hit" : "miss" }), 1),
    hit ? Effect.flatMap(Clock.currentTimeMillis, (now) => Metric.update(lastSuccess, now / 1000)) : Effect.void
  )

/** Counts wrong bytes of a peer. */
export const corrupted = (peer: string): Effect.Effect<void> => Metric.update(corruptionsBy({ peer }), 1)

/** Counts a failure of a peer by the tag of its error. */
export const peerFailed = (reason: string): Effect.Effect<void> => Metric.update(peerFailuresBy({ reason }), 1)

/** Counts a discarded download. */
export const ingestDiscarded: Effect.Effect<void> = Metric.update(ingestsDiscarded, 1)

/** Counts a circuit that opened, or stayed open after a probe. */
export const circuitOpened = (registry: string): Effect.Effect<void> =>
  Metric.update(circuitOpeningsBy({ registry }), 1)

interface AnsweredRequest {
  readonly handler: string
  readonly method: string
  readonly status: number
  readonly millis: number
  readonly bytes: number
}

/** Counts an answered request. */
export const answered = (request: AnsweredRequest): Effect.Effect<void> =>
  Effect.contextWith((context) => Effect.sync(() => answeredUnsafe(request, context)))

/** As `answered`, at once. */
export const answeredUnsafe = (
  { bytes, handler, method, millis, status }: AnsweredRequest,
  context: Context.Context<never>
): void => {
  const labels = { handler, method, code: String(status) }
  requestDurationBy(labels).updateUnsafe(millis / 1000, context)
  responseSizeBy(labels).updateUnsafe(bytes, context)
}

/** Counts `effect` as a request being answered. */
export const counted = (handler: string) => <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.acquireUseRelease(
    Metric.modify(inflightBy({ handler }), 1),
    () => effect,
    () => Metric.modify(inflightBy({ handler }), -1)
  )
