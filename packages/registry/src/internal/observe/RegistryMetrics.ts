/**
 * Metrics of the registry; those that count who asks it are in `AuthMetrics`. docs/metrics.md explains each. A metric that Spegel has
 * too has Spegel's name and labels.
 */
import * as MetricFamily from "@spegel-ts/background/MetricFamily"
import { Clock, type Context, Effect, Metric, type Scope } from "effect"
import type { PeerError } from "../../MirrorError.ts"
import type { Fate } from "../verify/DownloadFate.ts"

const durationBoundaries = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]
const sizeBoundaries = [100, 1000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000]

/** The endpoint of a request: one of the API, a probe, or an unknown one. */
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
 * The answers that alerts use, by handler and method; the series of others begin with the first such answer. Code 0 stands
 * for a body that was not sent to its end.
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
  NoMemoryForBody: true,
  PeerDisconnected: true,
  PeerRefused: true,
  PeerSlow: true,
  PeerStalled: true,
  PeerStillDownloading: true,
  PeerUnreachable: true
}

const fates: Readonly<Record<Fate, true>> = { committed: true, right: true, wrong: true, unknown: true }

// Requests

const requestDuration = MetricFamily.make(
  Metric.histogram("http_request_duration_seconds", {
    description: "How long requests took, body included",
    boundaries: durationBoundaries
  }),
  Object.entries(expectedAnswers).flatMap(([handler, methods]) =>
    Object.entries(methods).flatMap(([method, codes]) => codes.map((code) => ({ handler, method, code: String(code) })))
  )
)
const responseSize = MetricFamily.make(
  Metric.histogram("http_response_size_bytes", {
    description: "Size of response bodies",
    boundaries: sizeBoundaries
  })
)
const inflight = MetricFamily.make(
  Metric.gauge("http_requests_inflight", { description: "Requests being answered" }),
  Object.keys(expectedAnswers).map((handler) => ({ handler }))
)

// Content that is sent

const servedBytes = MetricFamily.make(
  Metric.counter("spegel_served_bytes_total", {
    description: "Body bytes of content sent, by where they came from and to whom they went",
    incremental: true
  }),
  [{ source: "local", client: "node" }, { source: "local", client: "peer" }, { source: "peer", client: "node" }]
)
const relayedBytes = Metric.counter("spegel_mirror_relayed_bytes_total", {
  description: "Body bytes of peers that were passed on to a client as they came",
  incremental: true
})
const bodyMemory = Metric.gauge("spegel_body_memory_bytes", {
  description: "Memory of bodies on their way to clients, buffers of sockets included, as it is known"
})
const bodiesRefused = Metric.counter("spegel_bodies_refused_total", {
  description: "Bodies that were not sent since their memory is bounded",
  incremental: true
})
const uploadsInflight = Metric.gauge("spegel_uploads_inflight", {
  description: "Bodies being sent to peers, and to clients other than this node's own containerd"
})
const uploadsRefused = MetricFamily.make(
  Metric.counter("spegel_uploads_refused_total", {
    description: "Bodies that were not sent to peers and such clients, by the bound that was reached",
    incremental: true
  }),
  [{ bound: "all" }, { bound: "peer" }]
)

const sharedDownloads = Metric.counter("spegel_downloads_shared_total", {
  description: "Bodies sent to peers from downloads that this node's containerd had in progress",
  incremental: true
})
const sharedBytes = Metric.counter("spegel_downloads_shared_bytes_total", {
  description: "Bytes of those bodies",
  incremental: true
})
const downloadFollowers = Metric.gauge("spegel_downloads_followers", {
  description: "Bodies being sent to peers from downloads that this node's containerd has in progress"
})
const decisions = ["go", "wait"] as const
const leasesAsked = MetricFamily.make(
  Metric.counter("spegel_mirror_leases_total", {
    description: "Requests of this node for the lease of a download from upstream, by the answer",
    incremental: true
  }),
  decisions.map((decision) => ({ decision }))
)

const damagedBlobs = Metric.counter("spegel_content_damaged_total", {
  description: "Blobs of this node that are not what their digests say, and are not given to peers any more",
  incremental: true
})

// Content of peers

const cacheResults = ["hit", "miss"] as const

const mirrorRequests = MetricFamily.make(
  Metric.counter("spegel_mirror_requests_total", {
    description: "Requests for content that this node lacked, by whether a peer served them",
    incremental: true
  })
)
const lastSuccess = Metric.gauge("spegel_mirror_last_success_timestamp_seconds", {
  description: "When a peer last served a request of this node, as a Unix time; 0 for never"
})
const corruptions = Metric.counter("spegel_mirror_corruptions_total", {
  description: "Bodies of peers with wrong bytes",
  incremental: true
})
const peerFailures = MetricFamily.make(
  Metric.counter("spegel_mirror_peer_failures_total", {
    description: "Peers that were left for another or for upstream, by what they did",
    incremental: true
  }),
  Object.keys(peerFailureReasons).map((reason) => ({ reason }))
)
const waitEnds = ["served", "given_up"] as const
const downloadWaits = MetricFamily.make(
  Metric.counter("spegel_mirror_download_waits_total", {
    description: "Requests that waited for another node's download from upstream, by how the wait ended",
    incremental: true
  }),
  waitEnds.map((end) => ({ end }))
)
const ingestsDiscarded = Metric.counter("spegel_mirror_ingests_discarded_total", {
  description: "Downloads of containerd that were discarded because of wrong bytes",
  incremental: true
})
const commitsWatched = MetricFamily.make(
  Metric.counter("spegel_mirror_commits_total", {
    description: "Downloads of containerd with bytes of peers, by what became of them",
    incremental: true
  }),
  Object.keys(fates).map((fate) => ({ fate }))
)
const circuitOpenings = MetricFamily.make(
  Metric.counter("spegel_mirror_circuit_openings_total", {
    description: "How often a registry's peers got little time because they kept requests waiting",
    incremental: true
  })
)

const known = [
  ...requestDuration.known,
  ...inflight.known,
  ...servedBytes.known,
  relayedBytes,
  bodyMemory,
  bodiesRefused,
  uploadsInflight,
  ...uploadsRefused.known,
  sharedDownloads,
  sharedBytes,
  downloadFollowers,
  ...leasesAsked.known,
  damagedBlobs,
  lastSuccess,
  corruptions,
  ...peerFailures.known,
  ...downloadWaits.known,
  ingestsDiscarded,
  ...commitsWatched.known
]

/** Further registries share one label, so that clients cannot make series without end by `?ns=`. */
const maxRegistries = 100
const registries = new Set<string>()

/** The label value of a registry. All series of a new one begin. */
const registryLabel = (registry: string): Effect.Effect<string> => {
  const label = registries.has(registry) || registries.size < maxRegistries ? registry : "other"
  if (registries.has(label)) return Effect.succeed(label)
  registries.add(label)
  return Effect.as(
    MetricFamily.exist([
      ...cacheResults.map((cache) => mirrorRequests.of({ registry: label, cache })),
      circuitOpenings.of({ registry: label })
    ]),
    label
  )
}

/** Creates the series of registries that are known to be mirrored. */
export const mirroredRegistries = (registries: Iterable<string>): Effect.Effect<void> =>
  Effect.forEach(registries, registryLabel, { discard: true })

/** Begins all series whose labels are known. */
export const initialise: Effect.Effect<void> = MetricFamily.exist(known)

/** Counts a request for content that this node lacks: `hit` when a peer served it. */
export const mirrored = (registry: string, hit: boolean): Effect.Effect<void> =>
  Effect.andThen(
    Effect.flatMap(
      registryLabel(registry),
      (registry) => Metric.update(mirrorRequests.of({ registry, cache: hit ? "hit" : "miss" }), 1)
    ),
    hit ? Effect.flatMap(Clock.currentTimeMillis, (now) => Metric.update(lastSuccess, now / 1000)) : Effect.void
  )

/** Counts a body with wrong bytes. */
export const corrupted: Effect.Effect<void> = Metric.update(corruptions, 1)

/** Counts a failure of a peer by the tag of its error. */
export const peerFailed = (reason: PeerError["_tag"]): Effect.Effect<void> =>
  Metric.update(peerFailures.of({ reason }), 1)

/** Counts a download of containerd that was discarded. */
export const ingestDiscarded: Effect.Effect<void> = Metric.update(ingestsDiscarded, 1)

/** Counts a download of containerd that peers sent bytes of. */
export const commitWatched = (fate: Fate): Effect.Effect<void> => Metric.update(commitsWatched.of({ fate }), 1)

/** Counts a circuit that opened, or stayed open after a probe. */
export const circuitOpened = (registry: string): Effect.Effect<void> =>
  Effect.flatMap(registryLabel(registry), (registry) => Metric.update(circuitOpenings.of({ registry }), 1))

/** Counts a body that a peer gets from a download in progress while the scope is open; `bytes` is how many it got. */
export const downloadShared = (bytes: () => number): Effect.Effect<void, never, Scope.Scope> =>
  Effect.asVoid(Effect.acquireRelease(
    Effect.andThen(Metric.update(sharedDownloads, 1), Metric.modify(downloadFollowers, 1)),
    () => Effect.andThen(Metric.modify(downloadFollowers, -1), Metric.update(sharedBytes, bytes()))
  ))

/** Counts an answer to a request for a lease. */
export const leaseAsked = (decision: (typeof decisions)[number]): Effect.Effect<void> =>
  Metric.update(leasesAsked.of({ decision }), 1)

/** Counts the end of a wait for another node's download. */
export const waitEnded = (end: (typeof waitEnds)[number]): Effect.Effect<void> =>
  Metric.update(downloadWaits.of({ end }), 1)

/** Counts a blob of this node that was found damaged. */
export const contentDamaged: Effect.Effect<void> = Metric.update(damagedBlobs, 1)

/** Sets the memory that bodies use now, in bytes. */
export const bodyMemoryUsed = (bytes: number): Effect.Effect<void> => Metric.update(bodyMemory, bytes)

/** Counts a body that found no memory. */
export const bodyRefused: Effect.Effect<void> = Metric.update(bodiesRefused, 1)

/** Sets the number of bodies being sent to peers. */
export const uploading = (bodies: number): Effect.Effect<void> => Metric.update(uploadsInflight, bodies)

/** Counts an upload that a bound did not allow. */
export const uploadRefused = (bound: "all" | "peer"): Effect.Effect<void> =>
  Metric.update(uploadsRefused.of({ bound }), 1)

interface ServedContent {
  readonly source: "local" | "peer"
  /** `peer` for another mirror; `node` for this node's containerd and all others. */
  readonly client: "node" | "peer"
  /** Body bytes sent. */
  readonly bytes: number
  /** The part of them that was passed on as it came from a peer. */
  readonly relayed: number
}

/** Counts content that was sent, synchronously. */
export const servedUnsafe = (
  { bytes, client, relayed, source }: ServedContent,
  context: Context.Context<never>
): void => {
  if (bytes > 0) servedBytes.of({ source, client }).updateUnsafe(bytes, context)
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

/** Counts an answered request, synchronously. */
export const answeredUnsafe = (
  { bytes, handler, method, millis, status }: AnsweredRequest,
  context: Context.Context<never>
): void => {
  const labels = { handler, method: method === "GET" || method === "HEAD" ? method : "other", code: String(status) }
  requestDuration.of(labels).updateUnsafe(millis / 1000, context)
  responseSize.of(labels).updateUnsafe(bytes, context)
}

/** Counts `effect` as a request in flight while it runs. */
export const counted = (handler: RequestHandler) => <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.acquireUseRelease(
    Metric.modify(inflight.of({ handler }), 1),
    () => effect,
    () => Metric.modify(inflight.of({ handler }), -1)
  )
