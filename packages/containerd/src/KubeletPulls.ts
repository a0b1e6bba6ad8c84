/**
 * Finds the images that containerd fetched from a registry for the kubelet.
 *
 * Much else makes image records: imports, `ctr` and `nerdctl` (which read other configurations than the CRI plugin
 * does), and new names for content that is held. Three signs identify a pull of the kubelet, the same in containerd 1.6,
 * 1.7 and 2.1 (measured): the CRI plugin itself creates the record `repository@digest`; the manifest's labels name the
 * registry that it came from; and the manifest was written since this began, for no other client and no other
 * namespace.
 */
import { BoundedMap } from "@spegel-ts/background/BoundedMap"
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import { BlobSource, type ContentStore } from "@spegel-ts/content/ContentStore"
import * as Digest from "@spegel-ts/oci/Digest"
import * as Manifest from "@spegel-ts/oci/Manifest"
import * as MediaType from "@spegel-ts/oci/MediaType"
import * as Reference from "@spegel-ts/oci/Reference"
import { Clock, Effect, Option, Queue, Result, Stream } from "effect"
import type { ContainerdClient, ContainerdFailed, ContainerdUnavailable, ImageEvent } from "./ContainerdClient.ts"

/** One image that containerd has just fetched for the kubelet. */
export interface KubeletPull {
  /** Registry, repository and digest; the tag is not known. */
  readonly reference: Reference.Reference
  /** When its manifest was stored, as `MonotonicTime.millis` has it. */
  readonly fetchedAt: number
  /** Whether containerd keeps the layers once they are unpacked; none if that is unknown. */
  readonly keepsLayers: Option.Option<boolean>
}

type Client = Pick<typeof ContainerdClient.Service, "contentInfo" | "events" | "isShared" | "image">
type Store = Pick<typeof ContentStore.Service, "open">

/** The containerd to follow, its store, and the callback. */
export interface KubeletPullsOptions {
  readonly client: Client
  readonly store: Store
  /** Called after each pull. The next call waits until this one has returned. */
  readonly onPull: (pull: KubeletPull) => Effect.Effect<void>
}

/** How many manifests of pulls to remember, and how many of other clients. */
const maxRemembered = 4096
/** How many records may wait to be judged; beyond it the oldest are skipped. */
const maxWaiting = 256
/** How long to wait for the records of other clients, which may be announced later. */
const settleMillis = 3000
/** How many platforms of an index to look at. */
const maxPlatforms = 16

const source = "containerd.io/distribution.source."
const childReference = "containerd.io/gc.ref.content."
const manifestReference = `${childReference}m.`
const configReference = `${childReference}config`

/** Parses a record's name `repository@digest`; none for other names. */
const byDigest = (name: string) =>
  Option.flatMap(
    Result.getSuccess(Reference.parse(name)),
    (reference) =>
      reference.digest === undefined || reference.tag !== undefined || Reference.print(reference) !== name
        ? Option.none()
        : Option.some({ reference, digest: reference.digest })
  )

const hasLayers = (store: Store, digest: Digest.Digest) =>
  store.open(digest).pipe(
    Effect.flatMap((blob) =>
      blob.size > MediaType.maxManifestSize
        ? Effect.succeed(new Uint8Array())
        : BlobSource.$match(blob, {
          Bytes: ({ bytes }) => Effect.succeed(bytes),
          File: ({ handle }) => Effect.promise((): Promise<Uint8Array> => handle.readFile())
        })
    ),
    Effect.map((bytes) =>
      Result.match(Manifest.parse(bytes), {
        onFailure: () => false,
        onSuccess: (manifest) => manifest._tag === "Image" && manifest.layers.length > 0
      })
    ),
    Effect.scoped,
    Effect.orElseSucceed(() => false)
  )

/**
 * By a manifest's labels containerd knows which blobs to keep. With `discard_unpacked_layers` it never sets those for
 * layers, so this is known before the first layer is gone.
 */
const keepsLayers = Effect.fnUntraced(function*(
  { client, store }: Pick<KubeletPullsOptions, "client" | "store">,
  digest: Digest.Digest,
  labels: Readonly<Record<string, string>>
) {
  const platforms = Object.entries(labels).flatMap(([label, child]) =>
    label.startsWith(manifestReference) ? Option.toArray(Digest.fromString(child)) : []
  )
  for (const manifest of platforms.length === 0 ? [digest] : platforms.slice(0, maxPlatforms)) {
    // Manifests of other platforms are not here.
    const found = manifest === digest
      ? labels
      : yield* client.contentInfo(manifest).pipe(
        Effect.map(({ labels }) => labels),
        Effect.catchTag("ContainerdNotFound", () => Effect.succeed<Readonly<Record<string, string>>>({}))
      )
    const names = Object.keys(found)
    // A layer of a type that containerd does not know has no mark of its own, and is kept always.
    const refersToLayer = names.some((name) =>
      name.startsWith(childReference) && name !== configReference && !name.startsWith(manifestReference)
    )
    if (refersToLayer) return Option.some(true)
    if (names.includes(configReference) && (yield* hasLayers(store, manifest))) return Option.some(false)
  }
  return Option.none<boolean>()
})

/**
 * Calls `onPull` for each pull from now on. Fails when containerd goes away: run it again then, which tells of no pull
 * that ended meanwhile.
 */
export const follow = Effect.fnUntraced(function*(
  { client, onPull, store }: KubeletPullsOptions
): Effect.fn.Return<void, ContainerdUnavailable | ContainerdFailed> {
  const begun = yield* Clock.currentTimeMillis
  /** When each manifest of a pull was stored: a second name for it is not a second fetch. */
  const told = new BoundedMap<Digest.Digest, number>(maxRemembered)
  /** Manifests for which another client has made a record. */
  const others = new BoundedMap<Digest.Digest, true>(maxRemembered)
  const created = yield* Queue.sliding<{ readonly name: string; readonly at: number }>(maxWaiting)

  const digestOf = (name: string) =>
    Option.match(byDigest(name), {
      onNone: () => Effect.map(client.image(name), ({ digest }) => digest),
      onSome: ({ digest }) => Effect.succeed(digest)
    })

  const noteRecord = (event: ImageEvent): Effect.Effect<void, ContainerdUnavailable | ContainerdFailed> => {
    if (event._tag !== "ImageChanged" || event.createdBy === "none") return Effect.void
    const { name } = event
    if (event.createdBy === "kubelet") {
      return Effect.flatMap(MonotonicTime.millis, (at) => Effect.asVoid(Queue.offer(created, { name, at })))
    }
    return digestOf(name).pipe(
      Effect.map((digest) => void others.set(digest, true)),
      // The record has been removed again.
      Effect.catchTag("ContainerdNotFound", () => Effect.void)
    )
  }

  const judge = Effect.gen(function*() {
    const { at, name } = yield* Queue.take(created)
    const named = byDigest(name)
    if (Option.isNone(named)) return
    yield* Effect.sleep(Math.max(0, at + settleMillis - (yield* MonotonicTime.millis)))
    const { digest, reference } = named.value
    const { createdAt, labels } = yield* client.contentInfo(digest)
    if (createdAt < begun || told.get(digest) === createdAt || others.has(digest)) return
    told.set(digest, createdAt)
    if (!Object.keys(labels).some((label) => label.startsWith(source)) || (yield* client.isShared(digest))) return
    // containerd tells the time of a clock that may be set.
    const age = Math.max(0, (yield* Clock.currentTimeMillis) - createdAt)
    const fetchedAt = (yield* MonotonicTime.millis) - age
    yield* onPull({ reference, fetchedAt, keepsLayers: yield* keepsLayers({ client, store }, digest, labels) })
  }).pipe(
    // The image has been removed again.
    Effect.catchTag("ContainerdNotFound", () => Effect.void)
  )

  yield* Effect.all([Stream.runForEach(client.events, noteRecord), Effect.forever(judge)], {
    concurrency: "unbounded"
  })
})
