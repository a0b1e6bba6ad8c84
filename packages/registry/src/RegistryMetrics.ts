/**
 * The registry's metrics, under Spegel's names where it has them. Series whose labels are known exist as 0 from the start:
 * Prometheus' `increase()` does not see the step from no series to 1, and so not the first failure.
 */
import { Clock, type Context, Effect, Metric } from "effect"
import type { Fate } from "./internal/verify/DownloadFate.ts"
import type { PeerError } from "./MirrorError.ts"

const durationBoundaries = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]
const sizeBoundaries = [100, 1000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000]

const mirrorRequests = Metric.counter("spegel_mirror_requests_total", {
  description: "Requests for content that this node lacked, by whether a peer served them",
  incremental: true
})
const lastSuccess = Metric.gauge("spegel_mirror_last_success_timestamp_seconds", {
  description: "When a peer last served a request of this node, as a Unix time; 0 for never"
})
const corruptions = Metric.counter("spegel_mirror_corruptions_total", {
  description: "Bodies of peers with wrong bytes",
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
const commitsWatched = Metric.counter("spegel_mirror_commits_total", {
  description: "Downloads of containerd with bytes of peers, by what became of them",
  incremental: true
})
const circuitOpenings = Metric.counter("spegel_mirror_circuit_openings_total", {
  description: "How often a registry's peers got little time because they kept requests waiting",
  incremental: true
})
const servedBytes = Metric.counter("spegel_served_bytes_total", {
  description: "Body bytes of content sent, by where they came from and to whom they went",
  incremental: true
})
const relayedBytes = Metric.counter("spegel_mirror_relayed_bytes_total", {
  description: "Body bytes of peers that were passed on to a client as they came",
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

/** What is asked for: an endpoint of the API, a probe, or nothing that can be understood. */
export type RequestHandler =
  | "blob"
  | "manifest"
  | "tagslist"
  | "referrers"
  | "ping"
  | "livez"
  | "readyz"
  | "invalid"

/**
 * Answers that alerts ask for, by handler and method; others get their series when they are given. Code 0 is a body that
 * was not sent to its end.
 */
const expectedAnswers: Readonly<Record<RequestHandler, Readonly<Record<string, ReadonlyArray<number>>>>> = {
  blob: { GET: [200, 206, 404, 503, 0], HEAD: [200, 404, 503] },
  manifest: { GET: [200, 404, 503, 0], HEAD: [200, 404, 503] },
  tagslist: {},
  referrers: {},
  ping: {},
  livez: { GET: [200] },
  readyz: { GET: [200, 503] },
  invalid: {}
}

const peerFailureReasons: Readonly<Record<PeerError["_tag"], true>> = {
  ContentCorrupted: true,
  PeerDisconnected: true,
  PeerRefused: true,
  PeerSlow: true,
  PeerStalled: true,
  PeerUnreachable: true
}

const fates: Readonly<Record<Fate, true>> = { committed: true, right: true, wrong: true, unknown: true }

const cacheResults = ["hit", "miss"] as const

const servings = [
  { source: "local", client: "node" },
  { source: "local", client: "peer" },
  { source: "peer", client: "node" }
] as const

/** Makes the series of each label set once. */
const byLabels = <Input, State>(metric: Metric.Metric<Input, State>) => {
  const series = new Map<string, Metric.Metric<Input, State>>()
  return (labels: Record<string, string>): Metric.Metric<Input, State> => {
    const key = Object.values(labels).join("\n")
    const known = series.get(key)
    if (known !== undefined) return known
    const made = Metric.withAttributes(metric, labels)
    series.set(key, made)
    return made
  }
}

const mirrorRequestsBy = byLabels(mirrorRequests)
const peerFailuresBy = byLabels(peerFailures)
const commitsWatchedBy = byLabels(commitsWatched)
const circuitOpeningsBy = byLabels(circuitOpenings)
const servedBytesBy = byLabels(servedBytes)
const requestDurationBy = byLabels(requestDuration)
const responseSizeBy = byLabels(responseSize)
const inflightBy = byLabels(inflight)

/** Reading a metric makes its series, which counts nothing yet. */
const exist = (metrics: ReadonlyArray<Metric.Metric<never, unknown>>): Effect.Effect<void> =>
  Effect.forEach(metrics, (metric) => Metric.value(metric), { discard: true })

/** Registries beyond this many are counted together, so that a client cannot make series without end by `?ns=`. */
const maxRegistries = 100
const registries = new Set<string>()

/** The label of a registry. A new one gets all its series. */
const registryLabel = (registry: string): Effect.Effect<string> => {
  if (registries.has(registry)) return Effect.succeed(registry)
  const label = registries.size < maxRegistries ? registry : "other"
  if (registries.size < maxRegistries) registries.add(registry)
  return Effect.as(
    exist([
      ...cacheResults.map((cache) => mirrorRequestsBy({ registry: label, cache })),
      circuitOpeningsBy({ registry: label })
    ]),
    label
  )
}

/** Makes the series whose labels are known: `registries` are those that are known to be mirrored. */
export const initialise = (registries: Iterable<string>): Effect.Effect<void> =>
  Effect.all([
    Effect.forEach(registries, registryLabel, { discard: true }),
    exist([
      lastSuccess,
      corruptions,
      ingestsDiscarded,
      relayedBytes,
      ...Object.keys(peerFailureReasons).map((reason) => peerFailuresBy({ reason })),
      ...Object.keys(fates).map((fate) => commitsWatchedBy({ fate })),
      ...servings.map(servedBytesBy),
      ...Object.keys(expectedAnswers).map((handler) => inflightBy({ handler })),
      ...Object.entries(expectedAnswers).flatMap(([handler, methods]) =>
        Object.entries(methods).flatMap(([method, codes]) =>
          codes.map((code) => requestDurationBy({ handler, method, code: String(code) }))
        )
      )
    ])
  ], { discard: true })

/** Counts a mirrored request: `hit` when a peer served it. */
export const mirrored = (registry: string, hit: boolean): Effect.Effect<void> =>
  Effect.andThen(
    Effect.flatMap(
      registryLabel(registry),
      (registry) => Metric.update(mirrorRequestsBy({ registry, cache: hit ? "hit" : "miss" }), 1)
    ),
    hit ? Effect.flatMap(Clock.currentTimeMillis, (now) => Metric.update(lastSuccess, now / 1000)) : Effect.void
  )

/** Counts a body with wrong bytes. */
export const corrupted: Effect.Effect<void> = Metric.update(corruptions, 1)

/** Counts a failure of a peer by the tag of its error. */
export const peerFailed = (reason: PeerError["_tag"]): Effect.Effect<void> =>
  Metric.update(peerFailuresBy({ reason }), 1)

/** Counts a discarded download. */
export const ingestDiscarded: Effect.Effect<void> = Metric.update(ingestsDiscarded, 1)

/** Counts a download of which peers sent something. */
export const commitWatched = (fate: Fate): Effect.Effect<void> => Metric.update(commitsWatchedBy({ fate }), 1)

/** Counts a circuit that opened, or stayed open after a probe. */
export const circuitOpened = (registry: string): Effect.Effect<void> =>
  Effect.flatMap(registryLabel(registry), (registry) => Metric.update(circuitOpeningsBy({ registry }), 1))

interface ServedContent {
  readonly source: "local" | "peer"
  /** This node's own clients, containerd above all, or a peer. */
  readonly client: "node" | "peer"
  /** Body bytes sent. */
  readonly bytes: number
  /** Those of them that were passed on as they came from a peer. */
  readonly relayed: number
}

/** Counts content that was sent, at once. */
export const servedUnsafe = (
  { bytes, client, relayed, source }: ServedContent,
  context: Context.Context<never>
): void => {
  if (bytes > 0) servedBytesBy({ source, client }).updateUnsafe(bytes, context)
  if (relayed > 0) relayedBytes.updateUnsafe(relayed, context)
}

interface AnsweredRequest {
  readonly handler: RequestHandler
  readonly method: string
  readonly status: number
  readonly millis: number
  /** Body bytes sent. */
  readonly bytes: number
}

/** Counts an answered request, at once. */
export const answeredUnsafe = (
  { bytes, handler, method, millis, status }: AnsweredRequest,
  context: Context.Context<never>
): void => {
  const labels = { handler, method: method === "GET" || method === "HEAD" ? method : "other", code: String(status) }
  requestDurationBy(labels).updateUnsafe(millis / 1000, context)
  responseSizeBy(labels).updateUnsafe(bytes, context)
}

/** Counts `effect` as a request being answered. */
export const counted = (handler: RequestHandler) => <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.acquireUseRelease(
    Metric.modify(inflightBy({ handler }), 1),
    () => effect,
    () => Metric.modify(inflightBy({ handler }), -1)
  )
