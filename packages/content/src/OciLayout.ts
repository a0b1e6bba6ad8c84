/**
 * A `ContentStore` over an OCI image layout (OCI image specification, image-layout.md): the store of nodes without
 * containerd. The names are those entries of `index.json` whose `org.opencontainers.image.ref.name` (or containerd's
 * `io.containerd.image.name`) is a full reference with a tag. A bare tag names no registry and is ignored.
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
import { isMissing, tryFile } from "./internal/FileFailure.ts"
import * as ManifestTypes from "./ManifestTypes.ts"

/** Annotations that may hold an image's name, the more specific one first. */
export const nameAnnotations = ["io.containerd.image.name", "org.opencontainers.image.ref.name"] as const

/** Size limit of `index.json`, in bytes. */
export const maxIndexSize = 4 * 1024 * 1024

/** The name in the annotations of an entry of `index.json`. */
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

/** Everything that `index.json` lists, and the names in it. */
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

const reading = "read the image layout"

const corrupt = (path: string, reason: string) =>
  new StoreUnavailable({
    operation: reading,
    hint: `${path} ${reason}; restore it, or remove it together with the images it lists`
  })

const readIndex = Effect.fnUntraced(function*(path: string) {
  const bytes = yield* tryFile(reading, path, () => readSmall(path, maxIndexSize))
  if (bytes === undefined) return yield* corrupt(path, `is not a file of at most ${maxIndexSize} bytes`)
  return yield* Effect.fromResult(Manifest.readIndex(bytes)).pipe(
    Effect.map(listedIn),
    Effect.mapError(({ reason }) => corrupt(path, `is not an image index (${reason})`))
  )
})

/** Differs between versions of a file, whether it is replaced by a rename or written in place; empty if there is none. */
const versionOf = (path: string) =>
  tryFile(reading, path, () =>
    stat(path, { bigint: true }).then(
      ({ ctimeNs, ino, mtimeNs, size }) => `${ino} ${mtimeNs} ${ctimeNs} ${size}`,
      (cause: unknown) => {
        if (isMissing(cause)) return ""
        throw cause
      }
    ))

/**
 * The layout at `root`, which must exist; a missing `index.json` counts as empty. Building it fails with
 * `StoreUnavailable` if `index.json` is corrupt. If it is damaged later, the store keeps the last good names and logs
 * one warning.
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

      /** Reads `index.json` if it has changed, and publishes the differences. */
      const refresh = oneAtATime.withPermits(1)(Effect.gen(function*() {
        const version = yield* versionOf(path)
        if (version === seen) return
        // A damaged version is read once, not for each request.
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
          // File times are coarse: two versions within a tick look the same, but each causes an event.
          changed: Effect.suspend(() => {
            seen = undefined
            return keepLast(refresh)
          })
        }
      })
      const manifestType = ManifestTypes.make(directory)
      yield* refresh
      // Checked on each use, because inotify reports a rename a moment after it has happened.
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
        // Its writers remove their own downloads.
        discard: () => Effect.void
      })
    })
  )
