/** One download of containerd that is watched, from the first relay for it until its fate is known. */
import type { ContentStore, Ingest, OpenIngest } from "@spegel-ts/content/ContentStore"
import type { Peer } from "@spegel-ts/router/Peer"
import type { FileWriter } from "@spegel-ts/transfer/FileLease"
import { Data, Effect, Exit, type Fiber, Latch, Option, Schedule, Scope, type Semaphore } from "effect"
import * as RegistryMetrics from "../observe/RegistryMetrics.ts"
import * as ContentHash from "./ContentHash.ts"
import * as DownloadFate from "./DownloadFate.ts"
import { Senders } from "./Senders.ts"

interface Judged {
  /** Peers whose bytes were relayed to the download. */
  readonly senders: ReadonlyArray<Peer>
}

/** The judgement of the peers that sent a download. */
export type Verdict = Data.TaggedEnum<{
  /** The bytes were right. */
  Right: Judged
  /** They were wrong; `liar` sent all of them, if that is known. */
  Wrong: Judged & { readonly liar: Option.Option<Peer> }
  /** They were all there and containerd did not commit them; `Right` or `Wrong` follows. */
  Doubted: Judged
}>
export const Verdict = Data.taggedEnum<Verdict>()

/** The parts that all watches of a node share. */
export interface Watches {
  readonly store: ContentStore["Service"]
  /** Watches end with it. */
  readonly scope: Scope.Scope
  /** Whether a file is open for writing. */
  readonly writerOf: (descriptor: number) => FileWriter
  /** Files are hashed one at a time. */
  readonly hashing: Semaphore.Semaphore
  readonly running: Map<WatchedDownload, Fiber.Fiber<void>>
  /** Paths of complete downloads that were hashed and are still there. */
  readonly settled: Set<string>
}

export interface WatchedDownload {
  readonly ingest: Ingest
  readonly file: OpenIngest
  readonly senders: Senders
  /** Told of the senders, when it is known what became of the download. */
  readonly told: (verdict: Verdict) => Effect.Effect<void>
  /** Relays under way. */
  relays: number
  /** Open while there is something to look at soon. */
  readonly wake: Latch.Latch
}

export interface WatchOptions
  extends Pick<WatchedDownload, "told">, Pick<DownloadFate.DownloadOptions, "isResumed" | "quietMillis">
{}

/** How often its file is looked at. A half-done download of a killed client stays for a day. */
const lookEvery = { growing: "250 millis", complete: "50 millis", resting: "5 seconds" } as const
const discardAgainEvery = "1 second"

/** Watches a download from when its latch opens. */
export const follow = Effect.fnUntraced(function*(
  watches: Watches,
  ingest: Ingest,
  { isResumed, quietMillis, told }: WatchOptions
) {
  const scope = yield* Scope.fork(watches.scope)
  const file = yield* watches.store.openIngest(ingest).pipe(
    Scope.provide(scope),
    Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause)))
  )
  const wake = yield* Latch.make(false)
  const watch: WatchedDownload = { ingest, file, senders: new Senders(), told, relays: 0, wake }
  const fiber = yield* wake.await.pipe(
    Effect.andThen(fateOf(watches, watch, { isResumed, quietMillis })),
    Effect.flatMap((fate) => judge(watches, watch, fate)),
    Effect.catchCause((cause) => Effect.logWarning(`the download ${ingest.ref} was left`, cause)),
    Effect.ensuring(Effect.suspend(() => {
      watches.running.delete(watch)
      return Scope.close(scope, Exit.void)
    })),
    // A fiber that is interrupted before it runs would never close the file.
    Effect.forkIn(watches.scope, { startImmediately: true })
  )
  watches.running.set(watch, fiber)
  return watch
})

const fateOf = (
  { hashing, writerOf }: Watches,
  watch: WatchedDownload,
  { isResumed, quietMillis }: Pick<WatchOptions, "isResumed" | "quietMillis">
): Effect.Effect<DownloadFate.Fate> => {
  const { file, ingest, wake } = watch
  const hash = ContentHash.growing(ingest.digest, file.chunks)
  const fate = DownloadFate.find({
    ingest,
    file,
    isResumed,
    isBusy: () => watch.relays > 0,
    quietMillis,
    writerOf,
    hash: { advance: hashing.withPermit(hash.advance), matches: hashing.withPermit(hash.matches) },
    pause: (phase) =>
      phase === "resting"
        ? Effect.andThen(wake.close, Effect.raceFirst(wake.await, Effect.sleep(lookEvery.resting)))
        : Effect.sleep(lookEvery[phase])
  })
  // A file that cannot be read says nothing of its senders.
  return Effect.catch(fate, ({ message }) => Effect.as(Effect.logDebug(message), "unknown" as const))
}

const judge = Effect.fnUntraced(function*(watches: Watches, watch: WatchedDownload, fate: DownloadFate.Fate) {
  const { ingest: { path, size }, told } = watch
  const senders = watch.senders.all
  if (fate === "right" || fate === "wrong") watches.settled.add(path)
  if (senders.length > 0) {
    yield* RegistryMetrics.commitWatched(fate)
    if (fate === "wrong") {
      yield* told(Verdict.Wrong({ senders, liar: Option.fromUndefinedOr(watch.senders.only(size)) }))
    } else if (fate !== "unknown") yield* told(Verdict.Right({ senders }))
  }
  // containerd may be restarting.
  if (fate === "wrong") yield* Effect.retry(discard(watches, watch), Schedule.spaced(discardAgainEvery))
})

/** Discards a download, as long as its file is the one that is wrong. */
export const discard = Effect.fnUntraced(function*({ store }: Watches, { file, ingest }: WatchedDownload) {
  if ((yield* file.state)._tag !== "InProgress") return
  yield* store.discard(ingest)
  yield* RegistryMetrics.ingestDiscarded
  yield* Effect.logWarning(
    `discarded the download ${ingest.ref} (${ingest.namespace}), whose bytes are wrong, so that the next pull succeeds`
  )
})

/** Reports `Doubted` for the senders if containerd has given the complete download up. */
export const doubt = Effect.fnUntraced(function*({ file, ingest, senders, told }: WatchedDownload) {
  const state = yield* Effect.option(file.state)
  const givenUp = Option.exists(state, (state) => state._tag === "Deleted" && state.written === ingest.size)
  if (givenUp && senders.all.length > 0) yield* told(Verdict.Doubted({ senders: senders.all }))
})
