/**
 * The `ContentStore` of a containerd daemon. Blobs are read as files of its content directory, which costs a tenth of
 * reading them over gRPC and is the same in all versions; names come from the Images API, kept in memory and followed
 * by events.
 */
import * as Background from "@spegel-ts/background/Background"
import * as BlobDirectory from "@spegel-ts/content/BlobDirectory"
import * as ChangeFeed from "@spegel-ts/content/ChangeFeed"
import { ContentNotFound, ContentStore, StoreUnavailable } from "@spegel-ts/content/ContentStore"
import * as ManifestTypes from "@spegel-ts/content/ManifestTypes"
import * as Reference from "@spegel-ts/oci/Reference"
import { Duration, Effect, Layer, Option, Stream } from "effect"
import { existsSync } from "node:fs"
import { ContainerdClient, type ContainerdFailed, type ContainerdUnavailable } from "./ContainerdClient.ts"
import * as ContentDirectoryCheck from "./internal/store/ContentDirectoryCheck.ts"
import * as ImageRecords from "./internal/store/ImageRecords.ts"

/** The location of containerd's content. */
export interface ContainerdStoreOptions {
  /**
   * The content directory as this process sees it, usually `/var/lib/containerd/io.containerd.content.v1.content`.
   * Mount this directory itself: containerd's root above it is closed to other users.
   */
  readonly contentPath: string
  /** How users know the setting of this path, for messages: `--content-path`. Default: `the content path`. */
  readonly contentPathSetting?: string
}

type Client = typeof ContainerdClient.Service

const unavailable = (operation: string) => (cause: ContainerdUnavailable | ContainerdFailed) =>
  new StoreUnavailable({ operation, hint: cause.message, cause })

const openDirectory = Effect.fnUntraced(function*(contentPath: string, setting: string) {
  const directory = yield* BlobDirectory.make({ root: contentPath }).pipe(
    Effect.mapError((error) =>
      new StoreUnavailable({ ...error, hint: `${error.hint}; check ${setting} and that the directory is mounted` })
    )
  )
  if (!existsSync(contentPath)) {
    yield* Effect.logInfo(`${contentPath} is not there yet: containerd makes it with its first image`)
  }
  return directory
})

/** Applies containerd's events to the records until containerd goes away. */
const follow = (
  client: Client,
  records: ImageRecords.ImageRecords,
  check: ContentDirectoryCheck.ContentDirectoryCheck
) =>
  Stream.runForEach(client.events, (event) => {
    switch (event._tag) {
      case "Subscribed":
        return Effect.andThen(records.list, check.all)
      case "ImageRemoved":
        return records.remove(event.name)
      case "ImageChanged":
        // The event does not say what the name points to, and the image may be gone again.
        return client.image(event.name).pipe(
          Effect.tap(records.put),
          Effect.flatMap(check.image),
          Effect.catchTag("ContainerdNotFound", () => records.remove(event.name))
        )
    }
  })

/** Asks containerd for a record: the event of a pull that has just ended may not have arrived yet. */
const lookUp = (client: Client, record: string) =>
  client.image(record).pipe(
    Effect.catchTag("ContainerdNotFound", () => Effect.fail(new ContentNotFound({ content: record }))),
    Effect.catchTag(
      ["ContainerdUnavailable", "ContainerdFailed"],
      (error) => Effect.fail(unavailable("look up an image")(error))
    )
  )

const make = Effect.fnUntraced(function*(options: ContainerdStoreOptions) {
  const { contentPath, contentPathSetting = "the content path" } = options
  const client = yield* ContainerdClient
  const directory = yield* openDirectory(contentPath, contentPathSetting)
  const feed = yield* ChangeFeed.make()
  const records = ImageRecords.make(client, feed)
  const { images } = records
  const check = yield* ContentDirectoryCheck.make({ client, directory, contentPath, contentPathSetting, images })
  yield* Effect.mapError(records.list, unavailable("list containerd's images"))
  // Each subscription begins with a listing, so a lost connection loses no change.
  yield* Background.keepRunning("containerd's events", follow(client, records, check), {
    maxPause: Duration.seconds(2)
  })
  const manifestType = ManifestTypes.make(directory)

  return ContentStore.of({
    ...directory,
    resolve: Effect.fn("ContainerdStore.resolve")(function*(reference) {
      const record = Reference.name(reference)
      return (records.names.get(record) ?? (yield* lookUp(client, record))).digest
    }),
    manifestType: Effect.fn("ContainerdStore.manifestType")(function*(digest, name) {
      const kept = [...records.kept.values()]
      const record = Option.map(Option.filter(name, ({ tag }) => tag !== undefined), Reference.name)
      if (Option.isSome(record) && records.kept.get(record.value)?.digest !== digest) {
        // If there is no such record, the others decide.
        const image = yield* Effect.option(lookUp(client, record.value))
        if (Option.isSome(image)) kept.push({ ...image.value, reference: name })
      }
      return yield* manifestType(digest, name, kept)
    }),
    names: Stream.suspend(() => Stream.fromIterable([...records.names.values()])),
    discard: (ingest) =>
      client.abortIngest(ingest).pipe(
        Effect.catchTag("ContainerdNotFound", () => Effect.void),
        Effect.mapError(unavailable("discard a download of containerd")),
        Effect.withSpan("ContainerdStore.discard")
      ),
    changes: feed.changesWith(directory.changes)
  })
})

/**
 * The store of one containerd. Building it fails with `StoreUnavailable` if the content directory cannot be read or
 * containerd does not answer; later it waits for a containerd that is away. The directory may be missing: a containerd
 * without images has none yet.
 */
export const layer = (
  options: ContainerdStoreOptions
): Layer.Layer<ContentStore, StoreUnavailable, ContainerdClient> => Layer.effect(ContentStore, make(options))
