/**
 * A `ContentStore` over an OCI image layout directory (OCI image specification, image-layout.md): the store of nodes
 * without containerd. `index.json` gives the names: its entries whose `org.opencontainers.image.ref.name` (or
 * containerd's `io.containerd.image.name`) is a full reference with a tag. Bare tags name no registry and are passed over.
 */
import { Descriptor } from "@spegel-ts/oci/Descriptor"
import * as Reference from "@spegel-ts/oci/Reference"
import { Effect, Layer, Option, PubSub, Queue, Result, Schema, Stream } from "effect"
import { watch } from "node:fs"
import { readFile, stat } from "node:fs/promises"
import { join } from "node:path"
import * as BlobDirectory from "./BlobDirectory.ts"
import { ContentChange, ContentNotFound, ContentStore, type Name, StoreUnavailable } from "./ContentStore.ts"

/** `index.json` of a layout. */
export const LayoutIndex = Schema.fromJsonString(Schema.Struct({
  schemaVersion: Schema.Literal(2),
  mediaType: Schema.optionalKey(Schema.String),
  manifests: Schema.Array(Descriptor)
}))

/** Annotations that may hold an image's name, the more specific first. */
const nameAnnotations = ["io.containerd.image.name", "org.opencontainers.image.ref.name"]

const maxIndexSize = 4 * 1024 * 1024

const namesOf = (index: typeof LayoutIndex.Type): ReadonlyMap<string, Name> => {
  const names = new Map<string, Name>()
  for (const { annotations, digest } of index.manifests) {
    for (const annotation of nameAnnotations) {
      const text = annotations?.[annotation]
      // A bare tag such as `v1` would read as docker.io/library/v1.
      if (text === undefined || !text.includes("/")) continue
      const reference = Reference.parse(text)
      if (Result.isFailure(reference) || reference.success.tag === undefined) continue
      names.set(Reference.name(reference.success), { reference: reference.success, digest })
      break
    }
  }
  return names
}

const corrupt = (path: string, reason: string) =>
  new StoreUnavailable({
    operation: "read the image layout",
    hint: `${path} ${reason}; restore it, or remove it together with the images it lists`
  })

const readIndex = Effect.fnUntraced(function*(path: string, size: number) {
  if (size > maxIndexSize) return yield* corrupt(path, `is larger than ${maxIndexSize} bytes`)
  const text = yield* Effect.tryPromise({
    try: () => readFile(path, "utf8"),
    catch: () => corrupt(path, "may not be read by this user")
  })
  return yield* Schema.decodeEffect(LayoutIndex)(text).pipe(
    Effect.map(namesOf),
    Effect.mapError((error) => corrupt(path, `is no image index (${error.message.split("\n").join(" ")})`))
  )
})

/**
 * The layout at `root`, which must exist; a missing `index.json` is an empty one. Fails where `index.json` is corrupt
 * at the start; when it is damaged later, the names read last stay in force and a warning says so.
 */
export const layer = (options: { readonly root: string }): Layer.Layer<ContentStore, StoreUnavailable> =>
  Layer.effect(
    ContentStore,
    Effect.gen(function*() {
      const directory = yield* BlobDirectory.make(options)
      const path = join(options.root, "index.json")
      const changes = yield* PubSub.unbounded<ContentChange>()
      let names: ReadonlyMap<string, Name> = new Map()
      let version = ""

      /** Reads `index.json` again if it was replaced, and tells what is different. */
      const refresh = Effect.gen(function*() {
        const stats = yield* Effect.promise(() => stat(path).catch(() => undefined))
        const current = stats === undefined ? "" : `${stats.ino} ${stats.mtimeMs} ${stats.size}`
        if (current === version) return
        const before = names
        const after = stats === undefined ? new Map<string, Name>() : yield* readIndex(path, stats.size)
        names = after
        version = current
        for (const [name, { reference }] of before) {
          if (!after.has(name)) PubSub.publishUnsafe(changes, ContentChange.NameRemoved({ reference }))
        }
        for (const [name, entry] of after) {
          if (before.get(name)?.digest !== entry.digest) {
            PubSub.publishUnsafe(changes, ContentChange.NameAdded(entry))
          }
        }
      })
      yield* refresh
      // Asked for on each use, since inotify tells of a rename a moment after it has happened.
      const current = refresh.pipe(
        Effect.catch((error) => Effect.logWarning(`${error.message}: names keep their last good state`)),
        Effect.map(() => names)
      )
      yield* Stream.callback<void>((queue) =>
        Effect.acquireRelease(
          Effect.sync(() =>
            watch(options.root, { persistent: false }, (_event, name) => {
              if (name === "index.json" || name === null) Queue.offerUnsafe(queue, undefined)
            })
          ),
          (watcher) => Effect.sync(() => watcher.close())
        ), { bufferSize: 1, strategy: "sliding" }).pipe(Stream.runForEach(() => current), Effect.forkScoped)

      return ContentStore.of({
        ...directory,
        resolve: Effect.fn("OciLayout.resolve")(function*(reference) {
          const name = Reference.name(reference)
          const entry = Option.fromUndefinedOr((yield* current).get(name))
          if (Option.isNone(entry)) return yield* new ContentNotFound({ content: name })
          return entry.value.digest
        }),
        names: Stream.fromIterableEffect(Effect.map(current, (names) => names.values())),
        changes: Stream.unwrap(Effect.map(
          PubSub.subscribe(changes),
          (subscription) => Stream.merge(directory.changes, Stream.fromSubscription(subscription))
        ))
      })
    })
  )
