/**
 * Verification by commit. Large bodies are passed on to containerd unhashed, since it hashes them itself. Each download that they
 * are for is watched (`WatchedDownload`): a commit by containerd proves that its senders sent the right bytes. Downloads
 * that are wrong are discarded: containerd would keep them, and each new pull would commit the same bytes again and fail.
 *
 * Bytes are blamed on a peer, or discarded, only if they were hashed and are wrong. A relay belongs to a download if containerd's
 * name is in `User-Agent` and the download has reached the first byte asked for. If that is in doubt, as for other clients, the
 * relay is not watched.
 */
import * as Background from "@spegel-ts/background/Background"
import { Tally } from "@spegel-ts/background/Tally"
import { ContentStore, type Ingest } from "@spegel-ts/content/ContentStore"
import type * as Digest from "@spegel-ts/oci/Digest"
import type { Peer } from "@spegel-ts/router/Peer"
import type { FileWriter } from "@spegel-ts/transfer/FileLease"
import { Effect, Fiber, Option, type Scope, Semaphore, Stream } from "effect"
import * as WatchedDownload from "./WatchedDownload.ts"

/** A client's GET of a blob. */
export interface BlobRequest {
  readonly digest: Digest.Digest
  /** The first byte asked for; none if the request does not ask for everything from there on. */
  readonly start: Option.Option<number>
  readonly userAgent: string
  /** Told of the peers that sent something, when their bytes are judged: as a rule after the request has ended. */
  readonly told: (verdict: WatchedDownload.Verdict) => Effect.Effect<void>
}

/** The download of containerd that a relay is for. */
export interface Download {
  /** The size in bytes that the image's manifest gives; none if nothing is being downloaded. */
  readonly size: Option.Option<number>
  /** Reports bytes `[from, to)` that a peer sends, when they begin and when they end. Ignored if the relay is not watched. */
  readonly sent: (peer: Peer, from: number, to: number) => void
  /** Discards the download, whose bytes were found to be wrong. */
  readonly discard: Effect.Effect<void>
}

/** For a request that is for no download of containerd. */
export const noDownload: Download = { size: Option.none(), sent: () => {}, discard: Effect.void }

export interface CommitWatch {
  /** Reports `Doubted` for the peers that sent the digest before, if a pull asks for all of it once more. */
  readonly doubt: (digest: Digest.Digest) => Effect.Effect<void>
  /** A relay begins, before its first byte; it ends with the scope. */
  readonly begin: (request: BlobRequest) => Effect.Effect<Download, never, Scope.Scope>
}

/** How containerd's `User-Agent` begins. */
const containerd = "containerd/"
/** Hashing a download too early costs some processor time, and nothing else. */
const quietMillis = 100
const sweepEvery = "30 seconds"
/** Each needs a file descriptor; containerd has a handful of downloads. */
const maxWatches = 256
const discardTimeout = "2 seconds"

interface Watches extends WatchedDownload.Watches {
  /** Relays to containerd under way, watched or not. */
  readonly relays: Tally<Digest.Digest>
}

interface Relay extends Pick<BlobRequest, "digest" | "told"> {
  readonly start: number
}

/** For a download for which nothing was relayed. A pull that this node did not serve may be about to commit it. */
const unsent: WatchedDownload.WatchOptions = { isResumed: false, quietMillis: 5000, told: () => Effect.void }

/** Watches end with the scope. `writerOf` finds out whether a file is open for writing. */
export const make = Effect.fnUntraced(function*(writerOf: (descriptor: number) => FileWriter) {
  const watches: Watches = {
    store: yield* ContentStore,
    scope: yield* Effect.scope,
    writerOf,
    hashing: yield* Semaphore.make(1),
    running: new Map(),
    settled: new Set(),
    relays: new Tally()
  }
  yield* Background.keepRunning(
    "sweep of downloads",
    Effect.forever(Effect.andThen(sweep(watches), Effect.sleep(sweepEvery)))
  )
  return {
    doubt: (digest) =>
      Effect.suspend(() => Effect.forEach(watchesOf(watches, digest), WatchedDownload.doubt, { discard: true })),
    begin: (request) => begin(watches, request)
  } satisfies CommitWatch
})

const watchesOf = ({ running }: Watches, digest: Digest.Digest): ReadonlyArray<WatchedDownload.WatchedDownload> =>
  [...running.keys()].filter(({ ingest }) => ingest.digest === digest)

const begin = Effect.fnUntraced(function*(watches: Watches, { digest, start, told, userAgent }: BlobRequest) {
  const found = yield* watches.store.inProgress.pipe(
    Stream.filter((ingest) => ingest.digest === digest),
    Stream.runCollect,
    Effect.orElseSucceed(() => [])
  )
  const size = Option.map(Option.fromUndefinedOr(found[0]), ({ size }) => size)
  if (Option.isNone(start) || !userAgent.startsWith(containerd)) return { ...noDownload, size }
  const watch = yield* Effect.acquireRelease(
    beginRelay(watches, { digest, start: start.value, told }, found),
    (watch) => endRelay(watches, digest, watch)
  )
  if (watch === undefined) return { ...noDownload, size }
  return {
    size,
    sent: (peer, from, to) => {
      watch.senders.sent(peer, from, to)
      watch.wake.openUnsafe()
    },
    discard: Effect.ignore(Effect.timeout(WatchedDownload.discard(watches, watch), discardTimeout))
  } satisfies Download
})

/** The watch of the download that a relay is for, if that is certain. `found` are the downloads of its digest. */
const beginRelay = Effect.fnUntraced(function*(watches: Watches, relay: Relay, found: ReadonlyArray<Ingest>) {
  const isBusy = watches.relays.of(relay.digest) > 0
  watches.relays.add(relay.digest, 1)
  const watch = knownWatch(watches, relay, found, isBusy) ?? (yield* newWatch(watches, relay, found, isBusy))
  if (watch !== undefined) watch.relays++
  return watch
})

const knownWatch = (watches: Watches, { digest, start }: Relay, found: ReadonlyArray<Ingest>, isBusy: boolean) => {
  const watch = watchesOf(watches, digest).find(({ ingest, relays }) => {
    const now = found.find(({ path }) => path === ingest.path)
    // A pull asks for the first byte once, and then for what it does not have, or for parts side by side.
    return now !== undefined && start >= now.written && !(start === 0 && relays > 0)
  })
  if (watch !== undefined && (isBusy || found.length > 1)) watch.senders.mix()
  return watch
}

const newWatch = (watches: Watches, { start, told }: Relay, found: ReadonlyArray<Ingest>, isBusy: boolean) => {
  const [ingest, ...more] = found.filter(({ written }) => written === start)
  return isBusy || ingest === undefined || more.length > 0 || watches.running.size >= maxWatches
    ? Effect.undefined
    : Effect.orElseSucceed(
      WatchedDownload.follow(watches, ingest, { isResumed: start > 0, quietMillis, told }),
      () => undefined
    )
}

const endRelay = (watches: Watches, digest: Digest.Digest, watch: WatchedDownload.WatchedDownload | undefined) =>
  Effect.suspend(() => {
    watches.relays.add(digest, -1)
    if (watch === undefined) return Effect.void
    watch.relays--
    const fiber = watches.running.get(watch)
    // If no peer sent anything, the request was answered in another way.
    return watch.senders.all.length === 0 && watch.relays === 0 && fiber !== undefined
      ? Fiber.interrupt(fiber)
      : Effect.void
  })

/** Watches complete downloads for which nothing was relayed: those that are wrong would fail each new pull. */
const sweep = Effect.fnUntraced(function*(watches: Watches) {
  const { running, settled, store } = watches
  const found = yield* Stream.runCollect(store.inProgress)
  const paths = new Set(found.map(({ path }) => path))
  for (const path of settled) {
    if (!paths.has(path)) settled.delete(path)
  }
  const watched = new Set([...running.keys()].map(({ ingest }) => ingest.path))
  const complete = found.filter(({ path, size, written }) =>
    written === size && !settled.has(path) && !watched.has(path)
  )
  for (const ingest of complete.slice(0, maxWatches - running.size)) {
    const watch = yield* Effect.option(WatchedDownload.follow(watches, ingest, unsent))
    if (Option.isSome(watch)) yield* watch.value.wake.open
  }
})
