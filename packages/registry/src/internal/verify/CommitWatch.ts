/**
 * Verification by commit. Large bodies are passed on to containerd unhashed, since it hashes them itself; this sees whether
 * it then commits the download that they were for (`DownloadFate`), and tells who sent bytes that turned out to be wrong.
 * Downloads that are wrong are discarded: containerd would keep them, and each new pull would commit the same bytes again
 * and fail.
 *
 * Bytes are blamed on a peer, or discarded, only where they were hashed and are wrong. Which download a relay is for is told
 * by containerd's name in `User-Agent` and by a download that has come as far as the range asked for begins. Where that
 * is in doubt, as for other clients, the relay is not watched.
 */
import * as Background from "@spegel-ts/background/Background"
import { ContentStore, type Ingest, type OpenIngest } from "@spegel-ts/content/ContentStore"
import type * as Digest from "@spegel-ts/oci/Digest"
import type { Peer } from "@spegel-ts/router/Peer"
import type { FileWriter } from "@spegel-ts/transfer/FileLease"
import { Data, Effect, Exit, Fiber, Latch, Option, Schedule, Scope, Semaphore, Stream } from "effect"
import * as RegistryMetrics from "../observe/RegistryMetrics.ts"
import * as ContentHash from "./ContentHash.ts"
import * as DownloadFate from "./DownloadFate.ts"
import { Senders } from "./Senders.ts"

interface Judged {
  /** Peers whose bytes were relayed to the download. */
  readonly senders: ReadonlyArray<Peer>
}

/** What is learnt of peers. */
export type Verdict = Data.TaggedEnum<{
  /** The bytes were right. */
  Right: Judged
  /** They were wrong; `liar` sent all of them, where that is known. */
  Wrong: Judged & { readonly liar: Option.Option<Peer> }
  /** They were all there and containerd did not commit them; `Right` or `Wrong` follows. */
  Doubted: Judged
}>
export const Verdict = Data.taggedEnum<Verdict>()

/** A client's GET of a blob. */
export interface BlobRequest {
  readonly digest: Digest.Digest
  /** The first byte asked for; none where the request is no download of all from there. */
  readonly start: Option.Option<number>
  readonly userAgent: string
  /** Told of the peers that sent something, when it is known what became of it: after the request has ended, as a rule. */
  readonly told: (verdict: Verdict) => Effect.Effect<void>
}

/** What is known of the download that a relay is for. */
export interface Download {
  /** The size in bytes that the image's manifest gives; none where nothing is being downloaded. */
  readonly size: Option.Option<number>
  /** Tells of bytes `[from, to)` that a peer sends, when they begin and when they end; nothing where it is not watched. */
  readonly sent: (peer: Peer, from: number, to: number) => void
  /** Discards the download, whose bytes were found to be wrong. */
  readonly discard: Effect.Effect<void>
}

/** Of a request that is for no download of containerd. */
export const noDownload: Download = { size: Option.none(), sent: () => {}, discard: Effect.void }

export interface CommitWatch {
  /** Tells `Doubted` of those that sent the digest before, where a pull asks for all of it once more. */
  readonly doubt: (digest: Digest.Digest) => Effect.Effect<void>
  /** A relay begins, before its first byte; it ends with the scope. */
  readonly begin: (request: BlobRequest) => Effect.Effect<Download, never, Scope.Scope>
}

/** How containerd's `User-Agent` begins. */
const containerd = "containerd/"
/** What a killed client has left half done stays for a day, and rests: it is looked at now and then. */
const lookEvery = { growing: "250 millis", complete: "50 millis", resting: "5 seconds" } as const
/** To hash one too early costs some processor time, and nothing else. */
const quietMillis = 100
const sweepEvery = "30 seconds"
/** A descriptor each; containerd has a handful of downloads. */
const maxWatches = 256
const discardAgainEvery = "1 second"
const discardTimeout = "2 seconds"

interface Asked extends Pick<BlobRequest, "digest" | "told"> {
  readonly start: number
}

/** A download that is looked after. */
interface Watch {
  readonly ingest: Ingest
  readonly file: OpenIngest
  readonly senders: Senders
  readonly told: BlobRequest["told"]
  /** Relays under way. */
  relays: number
  /** Open where there is something to look at soon. */
  readonly wake: Latch.Latch
}

interface Following
  extends Pick<BlobRequest, "told">, Pick<DownloadFate.DownloadOptions, "isResumed" | "quietMillis">
{}

/** Of a download for which nothing was relayed. A pull that this node did not serve may be about to commit. */
const unsent: Following = { isResumed: false, quietMillis: 5000, told: () => Effect.void }

/** Watches end with the scope. `writerOf` tells whether a file is open for writing. */
export const make = Effect.fnUntraced(function*(writerOf: (descriptor: number) => FileWriter) {
  const store = yield* ContentStore
  const whole = yield* Effect.scope
  const oneAtATime = yield* Semaphore.make(1)
  const watches = new Map<Watch, Fiber.Fiber<void>>()
  /** Relays of containerd under way, watched or not. */
  const relays = new Map<Digest.Digest, number>()
  /** Paths of complete downloads that were hashed and are still there. */
  const settled = new Set<string>()

  const watchesOf = (digest: Digest.Digest) => [...watches.keys()].filter(({ ingest }) => ingest.digest === digest)

  /** Discards a download while its file is the one that is wrong. */
  const discard = Effect.fnUntraced(function*({ file, ingest }: Pick<Watch, "file" | "ingest">) {
    if ((yield* file.state)._tag !== "InProgress") return
    yield* store.discard(ingest)
    yield* RegistryMetrics.ingestDiscarded
    yield* Effect.logWarning(
      `discarded the download ${ingest.ref} (${ingest.namespace}), whose bytes are wrong, so that the next pull succeeds`
    )
  })

  const judge = Effect.fnUntraced(function*(watch: Watch, fate: DownloadFate.Fate) {
    const { ingest: { path, size }, told } = watch
    const senders = watch.senders.all
    if (fate === "right" || fate === "wrong") settled.add(path)
    if (senders.length > 0) {
      yield* RegistryMetrics.commitWatched(fate)
      if (fate === "wrong") {
        yield* told(Verdict.Wrong({ senders, liar: Option.fromUndefinedOr(watch.senders.only(size)) }))
      } else if (fate !== "unknown") yield* told(Verdict.Right({ senders }))
    }
    // containerd may be restarting.
    if (fate === "wrong") yield* Effect.retry(discard(watch), Schedule.spaced(discardAgainEvery))
  })

  /** Follows a download from when its latch opens. */
  const follow = Effect.fnUntraced(function*(
    ingest: Ingest,
    { isResumed, quietMillis, told }: Following
  ) {
    const scope = yield* Scope.fork(whole)
    const file = yield* store.openIngest(ingest).pipe(
      Scope.provide(scope),
      Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause)))
    )
    const watch: Watch = { ingest, file, senders: new Senders(), told, relays: 0, wake: yield* Latch.make(false) }
    const { wake } = watch
    const hash = ContentHash.growing(ingest.digest, file.chunks)
    const fiber = yield* wake.await.pipe(
      Effect.andThen(DownloadFate.find({
        ingest,
        file,
        isResumed,
        isBusy: () => watch.relays > 0,
        quietMillis,
        writerOf,
        hash: { advance: oneAtATime.withPermit(hash.advance), matches: oneAtATime.withPermit(hash.matches) },
        pause: (phase) =>
          phase === "resting"
            ? Effect.andThen(wake.close, Effect.raceFirst(wake.await, Effect.sleep(lookEvery.resting)))
            : Effect.sleep(lookEvery[phase])
      })),
      // What cannot be read says nothing.
      Effect.catch(({ message }) => Effect.as(Effect.logDebug(message), "unknown" as const)),
      Effect.flatMap((fate) => judge(watch, fate)),
      Effect.catchCause((cause) => Effect.logWarning(`the download ${ingest.ref} was left`, cause)),
      Effect.ensuring(Effect.suspend(() => {
        watches.delete(watch)
        return Scope.close(scope, Exit.void)
      })),
      // One that is interrupted before it runs would never let go of the file.
      Effect.forkIn(whole, { startImmediately: true })
    )
    watches.set(watch, fiber)
    return watch
  })

  /** The download that a relay is for, if that is certain. `found` are those of its digest. */
  const watchFor = Effect.fnUntraced(function*(
    { digest, start, told }: Asked,
    found: ReadonlyArray<Ingest>,
    busy: boolean
  ) {
    for (const watch of watchesOf(digest)) {
      const now = found.find(({ path }) => path === watch.ingest.path)
      // A pull asks for the first byte once, and then for what it does not have, or for parts side by side.
      if (now === undefined || start < now.written || (start === 0 && watch.relays > 0)) continue
      if (busy || found.length > 1) watch.senders.mix()
      return watch
    }
    const [ingest, ...more] = found.filter(({ written }) => written === start)
    if (busy || ingest === undefined || more.length > 0 || watches.size >= maxWatches) return undefined
    return yield* Effect.orElseSucceed(follow(ingest, { isResumed: start > 0, quietMillis, told }), () => undefined)
  })

  const count = (digest: Digest.Digest, change: 1 | -1) => {
    const running = (relays.get(digest) ?? 0) + change
    if (running > 0) relays.set(digest, running)
    else relays.delete(digest)
  }

  /** A relay of containerd begins. */
  const relayFor = Effect.fnUntraced(function*(request: Asked, found: ReadonlyArray<Ingest>) {
    const busy = relays.has(request.digest)
    count(request.digest, 1)
    const watch = yield* watchFor(request, found, busy)
    if (watch !== undefined) watch.relays++
    return watch
  })

  const end = (digest: Digest.Digest, watch: Watch | undefined) =>
    Effect.suspend(() => {
      count(digest, -1)
      if (watch === undefined) return Effect.void
      watch.relays--
      const fiber = watches.get(watch)
      // It was answered in another way.
      return watch.senders.all.length === 0 && watch.relays === 0 && fiber !== undefined
        ? Fiber.interrupt(fiber)
        : Effect.void
    })

  const sweep = Effect.gen(function*() {
    const found = yield* Stream.runCollect(store.inProgress)
    const paths = new Set(found.map(({ path }) => path))
    for (const path of settled) {
      if (!paths.has(path)) settled.delete(path)
    }
    const watched = new Set([...watches.keys()].map(({ ingest }) => ingest.path))
    const complete = found.filter(({ path, size, written }) =>
      written === size && !settled.has(path) && !watched.has(path)
    )
    for (const ingest of complete.slice(0, maxWatches - watches.size)) {
      const watch = yield* Effect.option(follow(ingest, unsent))
      if (Option.isSome(watch)) yield* watch.value.wake.open
    }
  })
  yield* Background.keepRunning(
    "sweep of downloads",
    Effect.forever(Effect.andThen(sweep, Effect.sleep(sweepEvery)))
  )

  return {
    doubt: Effect.fnUntraced(function*(digest) {
      for (const { file, ingest, senders, told } of watchesOf(digest)) {
        const state = yield* Effect.option(file.state)
        const givenUp = Option.exists(state, (state) => state._tag === "Deleted" && state.written === ingest.size)
        if (givenUp && senders.all.length > 0) yield* told(Verdict.Doubted({ senders: senders.all }))
      }
    }),
    begin: Effect.fnUntraced(function*({ digest, start, told, userAgent }) {
      const found = yield* store.inProgress.pipe(
        Stream.filter((ingest) => ingest.digest === digest),
        Stream.runCollect,
        Effect.orElseSucceed(() => [])
      )
      const size = Option.map(Option.fromUndefinedOr(found[0]), ({ size }) => size)
      if (Option.isNone(start) || !userAgent.startsWith(containerd)) return { ...noDownload, size }
      const watch = yield* Effect.acquireRelease(
        relayFor({ digest, start: start.value, told }, found),
        (watch) => end(digest, watch)
      )
      if (watch === undefined) return { ...noDownload, size }
      return {
        size,
        sent: (peer, from, to) => {
          watch.senders.sent(peer, from, to)
          watch.wake.openUnsafe()
        },
        discard: Effect.ignore(Effect.timeout(discard(watch), discardTimeout))
      }
    })
  } satisfies CommitWatch
})
