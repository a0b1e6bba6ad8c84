/**
 * A `ContentStore` over an OCI image layout directory (OCI image specification, image-layout.md): the store of nodes
 * without containerd. `index.json` gives the names: its entries whose `org.opencontainers.image.ref.name` (or
 * containerd's `io.containerd.image.name`) is a full reference with a tag. Bare tags name no registry and are passed over.
 */
import { Descriptor } from "@spegel-ts/oci/Descriptor"
import * as Reference from "@spegel-ts/oci/Reference"
import { Effect, Layer, Option, Result, Schema, Semaphore, Stream } from "effect"
import { stat } from "node:fs/promises"
import { join } from "node:path"
import * as BlobDirectory from "./BlobDirectory.ts"
import * as ChangeFeed from "./ChangeFeed.ts"
import { ContentChange, ContentNotFound, ContentStore, type Name, StoreUnavailable } from "./ContentStore.ts"
import { readSmall } from "./internal/BoundedFile.ts"
import { isMissing, tryFile, unavailable } from "./internal/FileFailure.ts"

/** `index.json` of a layout. */
export const LayoutIndex = Schema.fromJsonString(Schema.Struct({
  schemaVersion: Schema.Literal(2),
  mediaType: Schema.optionalKey(Schema.String),
  manifests: Schema.Array(Descriptor)
}))

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

const namesOf = (index: typeof LayoutIndex.Type): ReadonlyMap<string, Name> => {
  const names = new Map<string, Name>()
  for (const { annotations, digest } of index.manifests) {
    const reference = nameOf(annotations)
    if (Option.isSome(reference)) names.set(Reference.name(reference.value), { reference: reference.value, digest })
  }
  return names
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
  return yield* Schema.decodeEffect(LayoutIndex)(bytes.toString("utf8")).pipe(
    Effect.map(namesOf),
    Effect.mapError((error) => corrupt(path, `is no image index (${error.message.split("\n").join(" ")})`))
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
      let names: ReadonlyMap<string, Name> = new Map()
      let seen: string | undefined = undefined

      /** Reads `index.json` where it is not the version read last, and tells what is different. */
      const refresh = oneAtATime.withPermits(1)(Effect.gen(function*() {
        const version = Option.getOrElse(yield* versionOf(path), () => "")
        if (version === seen) return
        // A damaged version is read once, not on each request.
        seen = version
        const before = names
        names = version === "" ? new Map<string, Name>() : yield* readIndex(path)
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
      yield* refresh
      // Asked for on each use, since inotify tells of a rename a moment after it has happened.
      const current = Effect.map(keepLast(refresh), () => names)

      return ContentStore.of({
        ...directory,
        resolve: Effect.fn("OciLayout.resolve")(function*(reference) {
          const name = Reference.name(reference)
          const entry = Option.fromUndefinedOr((yield* current).get(name))
          if (Option.isNone(entry)) return yield* new ContentNotFound({ content: name })
          return entry.value.digest
        }),
        names: Stream.fromIterableEffect(Effect.map(current, (names) => names.values())),
        changes: feed.changesWith(directory.changes),
        // Its writers clean up for themselves.
        discard: () => Effect.void
      })
    })
  )
