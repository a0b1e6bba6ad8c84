/**
 * A `ContentStore` over an OCI image layout directory (OCI image specification, image-layout.md): the store of nodes
 * without containerd. `index.json` gives the names: its entries whose `org.opencontainers.image.ref.name` (or
 * containerd's `io.containerd.image.name`) is a full reference with a tag. Bare tags name no registry and are passed over.
 */
import type { Descriptor } from "@spegel-ts/oci/Descriptor"
import * as Manifest from "@spegel-ts/oci/Manifest"
import * as Reference from "@spegel-ts/oci/Reference"
import { Effect, Layer, Option, Result, Semaphore, Stream } from "effect"
import { stat } from "node:fs/promises"
import { join } from "node:path"
import * as BlobDirectory from "./BlobDirectory.ts"
import * as ChangeFeed from "./ChangeFeed.ts"
import { ContentChange, ContentNotFound, ContentStore, type Name, StoreUnavailable } from "./ContentStore.ts"
import { readSmall } from "./internal/BoundedFile.ts"
import { isMissing, tryFile, unavailable } from "./internal/FileFailure.ts"
import * as ManifestTypes from "./ManifestTypes.ts"

/** Annotations that may hold an image's name, the more specific first. */
export const nameAnnotations = ["io.containerd.image.name", "org.opencontainers.image.ref.name"] as const

/** `index.json` may have this many bytes. */
export const maxIndexSize = 4 * 1024 * 1024

/** The name that an entry of `index.json` has by its annotations. */
export const nameOf = (annotations: Readonly<Record<string, unknown>> = {}): Option.Option<Reference.Reference> => {
  for (const annotation of nameAnnotations) {
    const text = annotations[annotation]
    // A bare tag such as `v1` would read as docker.io/library/v1.
    if (typeof text !== "string" || !text.includes("/")) continue
    const reference = Reference.parse(text)
    if (Result.isSuccess(reference) && reference.success.tag !== undefined) return Option.some(reference.success)
  }
  return Option.none()
}

/** What `index.json` says: everything that it lists, and the names in it. */
interface Listed {
  readonly kept: ReadonlyArray<ManifestTypes.Kept>
  readonly names: ReadonlyMap<string, Name>
}

const nothing: Listed = { kept: [], names: new Map() }

const listedIn = (index: ReadonlyArray<Descriptor>): Listed => {
  const kept = index.map(({ annotations, digest, mediaType }) => ({
    digest,
    mediaType,
    reference: nameOf(annotations)
  }))
  const names = kept.flatMap(({ digest, reference }) =>
    Option.isSome(reference) ? [[Reference.name(reference.value), { reference: reference.value, digest }] as const] : []
  )
  return { kept, names: new Map(names) }
}

const corrupt = (path: string, reason: string) =>
  new StoreUnavailable({
    operation: "read the image layout",
    hint: `${path} ${reason}; restore it, or remove it together with the images it lists`
  })

const readIndex = Effect.fnUntraced(function*(path: string) {
  const bytes = yield* Effect.tryPromise({
    try: () => readSmall(path, maxIndexSize),
    catch: (cause) => unavailable("read the image layout", path)(cause)
  })
  if (bytes === undefined) return yield* corrupt(path, `is no file of at most ${maxIndexSize} bytes`)
  return yield* Effect.fromResult(Manifest.readIndex(bytes)).pipe(
    Effect.map(listedIn),
    Effect.mapError(({ reason }) => corrupt(path, `is no image index (${reason})`))
  )
})

/** What tells one version of a file from the next: it is replaced by a rename, or written in place. */
const versionOf = (path: string) =>
  tryFile("read the image layout", path, () =>
    stat(path, { bigint: true }).then(
      ({ ctimeNs, ino, mtimeNs, size }) => Option.some(`${ino} ${mtimeNs} ${ctimeNs} ${size}`),
      (cause: unknown) => {
        if (isMissing(cause)) return Option.none<string>()
        throw cause
      }
    ))

/**
 * The layout at `root`, which must exist; a missing `index.json` is an empty one. Fails where `index.json` is corrupt
 * at the start; when it is damaged later, the names read last stay in force and a warning says so, once.
 */
export const layer = (options: { readonly root: string }): Layer.Layer<ContentStore, StoreUnavailable> =>
  Layer.effect(
    ContentStore,
    Effect.gen(function*() {
      const path = join(options.root, "index.json")
      const feed = yield* ChangeFeed.make()
      const oneAtATime = yield* Semaphore.make(1)
      let listed = nothing
      let seen: string | undefined = undefined

      /** Reads `index.json` where it is not the version read last, and tells what is different. */
      const refresh = oneAtATime.withPermits(1)(Effect.gen(function*() {
        const version = Option.getOrElse(yield* versionOf(path), () => "")
        if (version === seen) return
        // A damaged version is read once, not on each request.
        seen = version
        const before = listed.names
        listed = version === "" ? nothing : yield* readIndex(path)
        const { names } = listed
        for (const [name, { reference }] of before) {
          if (!names.has(name)) yield* feed.publish(ContentChange.NameRemoved({ reference }))
        }
        for (const [name, entry] of names) {
          if (before.get(name)?.digest !== entry.digest) yield* feed.publish(ContentChange.NameAdded(entry))
        }
      }))
      const keepLast = Effect.catch((error: StoreUnavailable) =>
        Effect.logWarning(`${error.message}: names keep their last good state`)
      )
      yield* BlobDirectory.check(options.root)
      const directory = yield* BlobDirectory.make({
        root: options.root,
        file: {
          name: "index.json",
          // An event says more than times do, whose clock is coarse: two versions within a tick may look the same.
          changed: Effect.suspend(() => {
            seen = undefined
            return keepLast(refresh)
          })
        }
      })
      const manifestType = ManifestTypes.make(directory)
      yield* refresh
      // Asked for on each use, since inotify tells of a rename a moment after it has happened.
      const current = Effect.map(keepLast(refresh), () => listed)

      return ContentStore.of({
        ...directory,
        resolve: Effect.fn("OciLayout.resolve")(function*(reference) {
          const name = Reference.name(reference)
          const entry = Option.fromUndefinedOr((yield* current).names.get(name))
          if (Option.isNone(entry)) return yield* new ContentNotFound({ content: name })
          return entry.value.digest
        }),
        manifestType: (digest, name) => Effect.flatMap(current, ({ kept }) => manifestType(digest, name, kept)),
        names: Stream.fromIterableEffect(Effect.map(current, ({ names }) => names.values())),
        changes: feed.changesWith(directory.changes),
        // Its writers clean up for themselves.
        discard: () => Effect.void
      })
    })
  )
