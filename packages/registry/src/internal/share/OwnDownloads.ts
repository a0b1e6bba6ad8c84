/**
 * The downloads that this node's containerd has in progress. Peers are told of them from the beginning, so that they take a layer
 * from here while it grows, and not from upstream. The mirror knows of a download because containerd asks it first.
 *
 * Whether a download has ended is looked up in the content store: containerd tells nobody that it has given one up.
 */
import * as Background from "@spegel-ts/background/Background"
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import { ContentStore, type Ingest } from "@spegel-ts/content/ContentStore"
import type * as Digest from "@spegel-ts/oci/Digest"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import { Router } from "@spegel-ts/router/Router"
import { Effect, Latch, Option, type Scope, Stream } from "effect"
import { maxListed, type RunningDownload } from "../../Activity.ts"
import type { Mirror } from "../../Mirror.ts"
import type { DownloadState } from "./DownloadState.ts"
import type { Evidence } from "./Evidence.ts"
import * as Growth from "./Growth.ts"

export interface OwnDownloads {
  /** This node's containerd goes on with a download from upstream. */
  readonly leftToUpstream: (download: Begun) => Effect.Effect<void>
  /** Peers send it the rest of a download. */
  readonly servedByPeers: (download: Begun) => Effect.Effect<void>
  /** The download of a digest that has come furthest; none if there is none. */
  readonly find: (digest: Digest.Digest) => Effect.Effect<Option.Option<OwnDownload>>
  /** The same as it was a moment ago, for those that ask again and again. */
  readonly glance: (digest: Digest.Digest) => Effect.Effect<Option.Option<OwnDownload>>
  /** Whether it was stalled when it was last looked at. */
  readonly isStalled: (digest: Digest.Digest) => Effect.Effect<boolean>
  /** Those in progress now. */
  readonly list: Effect.Effect<ReadonlyArray<Omit<RunningDownload, "followers">>>
}

export interface OwnDownload {
  readonly ingest: Ingest
  readonly state: Pick<DownloadState, "ageMillis" | "origin" | "written">
}

/** A download that begins. */
export interface Begun {
  readonly digest: Digest.Digest
  /** `registry/repository`; empty if that is not known. */
  readonly image: string
  /** Nobody takes a part of it, so lookups need not find it while it is in progress. */
  readonly isManifest: boolean
}

interface Known extends Growth.Growth, Pick<Begun, "image"> {
  readonly isAdvertised: boolean
}

interface Parts {
  readonly store: ContentStore["Service"]
  readonly router: Router["Service"]
  readonly scope: Scope.Scope
  readonly known: Map<Digest.Digest, Known>
  readonly evidence: Evidence
  /** Open while there is something to look at. */
  readonly awake: Latch.Latch
}

/** containerd has a handful of downloads. */
const maxKnown = 256
const lookEvery = "250 millis"
/** A new download may not be there yet when it is asked for. In milliseconds. */
const grace = 2000
/** Downloads that began while no mirror ran are looked for once, when this one has settled. */
const firstLook = "1 second"
/** How old the answer of `glance` may be. */
const glanceAge = "20 millis"

/** Ends with the scope; peers are told nothing if `shares` is false. */
export const make = Effect.fnUntraced(function*({ evidence, shares }: Pick<Mirror, "evidence" | "shares">) {
  const parts: Parts = {
    store: yield* ContentStore,
    router: yield* Router,
    scope: yield* Effect.scope,
    known: new Map(),
    evidence,
    awake: yield* Latch.make(false)
  }
  if (shares) {
    yield* Background.keepRunning("downloads in progress", watch(parts))
    yield* Effect.forkScoped(adopt(parts))
  }
  const glanced = yield* Effect.cachedWithTTL(inProgress(parts), glanceAge)
  return {
    leftToUpstream: (download) => shares ? begin(parts, download, "upstream") : Effect.void,
    servedByPeers: (download) => shares ? begin(parts, download, "peers") : Effect.void,
    find: (digest) => Effect.flatMap(inProgress(parts), (found) => downloadOf(parts, found, digest)),
    glance: (digest) => Effect.flatMap(glanced, (found) => downloadOf(parts, found, digest)),
    isStalled: (digest) =>
      Effect.map(
        MonotonicTime.millis,
        (now) => {
          const growth = parts.known.get(digest)
          return Growth.originOf(growth, growth?.written ?? 0, now, upstreamAt(parts.known)) === "stalled"
        }
      ),
    list: Effect.zipWith(inProgress(parts), MonotonicTime.millis, (found, now) => listed(parts, found, now))
  } satisfies OwnDownloads
})

const inProgress = ({ store }: Parts): Effect.Effect<ReadonlyArray<Ingest>> =>
  Effect.orElseSucceed(Stream.runCollect(store.inProgress), () => [])

const furthest = (found: ReadonlyArray<Ingest>, digest: Digest.Digest): Ingest | undefined =>
  found.filter((ingest) => ingest.digest === digest).toSorted((a, b) => b.written - a.written)[0]

const listed = (
  { known }: Parts,
  found: ReadonlyArray<Ingest>,
  now: number
): ReadonlyArray<Omit<RunningDownload, "followers">> =>
  [...new Set(found.map(({ digest }) => digest))].slice(0, maxListed).flatMap((digest) => {
    const ingest = furthest(found, digest)
    if (ingest === undefined) return []
    const { size, written } = ingest
    const growth = known.get(digest)
    const origin = growth === undefined ? "unknown" : Growth.originOf(growth, written, now, upstreamAt(known))
    const millis = growth === undefined ? undefined : Math.round(now - growth.since)
    return [{ digest, size, written, origin, millis, image: growth?.image ?? "" }]
  })

const downloadOf = (
  { evidence, known }: Parts,
  found: ReadonlyArray<Ingest>,
  digest: Digest.Digest
): Effect.Effect<Option.Option<OwnDownload>> =>
  Effect.map(MonotonicTime.millis, (now) => {
    const ingest = furthest(found, digest)
    if (ingest === undefined) return Option.none()
    const { written } = ingest
    const growth = known.get(digest)
    const origin = Growth.originOf(growth, written, now, upstreamAt(known))
    const ageMillis = now - Growth.shownAt(growth, evidence.lastAt(digest), now)
    return Option.some({ ingest, state: { ageMillis, origin, written } })
  })

/** When a download from upstream last grew. */
const upstreamAt = (known: Parts["known"]): number =>
  Math.max(
    ...[...known.values()].map(({ grewAt, origin, written }) =>
      origin === "upstream" && written > 0 ? grewAt : -Infinity
    )
  )

const isHeld = ({ store }: Parts, digest: Digest.Digest) => Effect.isSuccess(store.size(digest))

/** Beside the request: it does not wait until peers have heard of it. */
const advertise = ({ router, scope }: Parts, digest: Digest.Digest) =>
  Effect.forkIn(Effect.ignore(router.advertise([ContentKey.make(digest)])), scope, { startImmediately: true })

const begin = (
  parts: Parts,
  { digest, image, isManifest }: Begun,
  origin: Growth.Growth["origin"]
): Effect.Effect<void> =>
  Effect.flatMap(MonotonicTime.millis, (now) => {
    const { awake, known } = parts
    const before = known.get(digest)
    if (before === undefined && known.size >= maxKnown) return Effect.void
    const wasAdvertised = before?.isAdvertised ?? false
    const isAdvertised = wasAdvertised || !isManifest
    known.set(digest, { origin, image, isAdvertised, since: now, grewAt: now, written: before?.written ?? 0 })
    const isNews = isAdvertised && !wasAdvertised
    return Effect.asVoid(Effect.andThen(awake.open, isNews ? advertise(parts, digest) : Effect.void))
  })

/** It has become a blob, which is advertised as such, or it was given up. */
const end = Effect.fnUntraced(function*(parts: Parts, digest: Digest.Digest, { isAdvertised }: Known) {
  const { known, router } = parts
  known.delete(digest)
  if (!isAdvertised || (yield* isHeld(parts, digest))) return
  yield* router.withdraw([ContentKey.make(digest)])
  // The next download may have begun meanwhile, and even ended.
  if (known.has(digest) || (yield* isHeld(parts, digest))) yield* advertise(parts, digest)
})

const look = Effect.fnUntraced(function*(parts: Parts) {
  const found = yield* inProgress(parts)
  const now = yield* MonotonicTime.millis
  for (const [digest, growth] of parts.known) {
    const written = furthest(found, digest)?.written
    if (written === undefined) {
      if (now - growth.since > grace) yield* end(parts, digest, growth)
    } else if (written !== growth.written) {
      growth.written = written
      growth.grewAt = now
    }
  }
})

const watch = (parts: Parts) =>
  parts.awake.await.pipe(
    // At first there is nothing to see, and a client is being answered.
    Effect.andThen(Effect.sleep(lookEvery)),
    Effect.andThen(Effect.suspend(() => parts.known.size === 0 ? parts.awake.close : look(parts))),
    Effect.forever
  )

const adopt = Effect.fnUntraced(function*(parts: Parts) {
  yield* Effect.sleep(firstLook)
  for (const { digest, written } of yield* inProgress(parts)) {
    if (written > 0 && !parts.known.has(digest)) yield* begin(parts, { digest, image: "", isManifest: false }, "peers")
  }
})
