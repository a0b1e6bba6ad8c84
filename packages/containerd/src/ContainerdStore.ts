/**
 * The `ContentStore` of a containerd daemon. Blobs are read as files of its content directory, which costs a tenth of
 * reading them over gRPC and is the same in all versions; names come from the Images API, kept in memory and followed
 * by events.
 */
import * as Background from "@spegel-ts/background/Background"
import * as BlobDirectory from "@spegel-ts/content/BlobDirectory"
import * as ChangeFeed from "@spegel-ts/content/ChangeFeed"
import {
  ContentChange,
  ContentNotFound,
  ContentStore,
  type Name,
  StoreUnavailable
} from "@spegel-ts/content/ContentStore"
import * as ManifestTypes from "@spegel-ts/content/ManifestTypes"
import * as Reference from "@spegel-ts/oci/Reference"
import { Duration, Effect, Layer, Option, Result, Stream } from "effect"
import { existsSync } from "node:fs"
import {
  ContainerdClient,
  type ContainerdFailed,
  type ContainerdUnavailable,
  type Image,
  registryImages
} from "./ContainerdClient.ts"
import * as ContentDirectoryCheck from "./ContentDirectoryCheck.ts"

export interface ContainerdStoreOptions {
  /**
   * The content directory as this process sees it, as a rule `/var/lib/containerd/io.containerd.content.v1.content`.
   * Mount this directory itself: containerd's root above it is closed to other users.
   */
  readonly contentPath: string
}

const unavailable = (operation: string) => (cause: ContainerdUnavailable | ContainerdFailed) =>
  new StoreUnavailable({ operation, hint: cause.message, cause })

/** The reference that a record's name is: not CRI's `sha256:<config>`, nor a short form that a person made with `ctr`. */
const referenceOf = ({ name }: Image): Option.Option<Reference.Reference> =>
  Option.filter(Result.getSuccess(Reference.parse(name)), (reference) => Reference.print(reference) === name)

/** A record is a name that a pull asks for when it has a tag, and not a digest. */
const toName = ({ digest }: Image, reference: Reference.Reference): Option.Option<Name> =>
  reference.tag === undefined || reference.digest !== undefined ? Option.none() : Option.some({ reference, digest })

/**
 * Fails at once where the content directory cannot be read or containerd does not answer; later it waits for it. A
 * directory that is not there is one of a containerd without images.
 */
export const layer = (
  options: ContainerdStoreOptions
): Layer.Layer<ContentStore, StoreUnavailable, ContainerdClient> =>
  Layer.effect(
    ContentStore,
    Effect.gen(function*() {
      const client = yield* ContainerdClient
      const directory = yield* BlobDirectory.make({ root: options.contentPath }).pipe(
        Effect.mapError((error) =>
          new StoreUnavailable({
            ...error,
            hint: `${error.hint}; check --containerd-content-path and that the directory is mounted`
          })
        )
      )
      if (!existsSync(options.contentPath)) {
        yield* Effect.logInfo(`${options.contentPath} is not there yet: containerd makes it with its first image`)
      }
      const check = yield* ContentDirectoryCheck.make({
        client,
        directory,
        contentPath: options.contentPath,
        images: client.images([registryImages])
      })
      const manifestType = ManifestTypes.make(directory)
      const names = new Map<string, Name>()
      /** What records point to, by their names. */
      const records = new Map<string, ManifestTypes.Kept>()
      const feed = yield* ChangeFeed.make()

      const put = Effect.fnUntraced(function*(image: Image) {
        const reference = referenceOf(image)
        if (Option.isNone(reference)) return
        records.set(image.name, { ...image, reference })
        const name = toName(image, reference.value)
        if (Option.isNone(name) || names.get(image.name)?.digest === image.digest) return
        names.set(image.name, name.value)
        yield* feed.publish(ContentChange.NameAdded(name.value))
      })
      const remove = Effect.fnUntraced(function*(key: string) {
        records.delete(key)
        const held = names.get(key)
        if (held === undefined) return
        names.delete(key)
        yield* feed.publish(ContentChange.NameRemoved({ reference: held.reference }))
      })

      const list = Effect.gen(function*() {
        const images = yield* client.images([registryImages])
        const held = new Set(images.map(({ name }) => name))
        yield* Effect.forEach([...records.keys()].filter((key) => !held.has(key)), remove, { discard: true })
        yield* Effect.forEach(images, put, { discard: true })
      })
      yield* Effect.mapError(list, unavailable("list containerd's images"))

      const follow = client.events.pipe(
        Stream.runForEach((event) => {
          switch (event._tag) {
            case "Subscribed":
              return Effect.andThen(list, check.all)
            case "ImageRemoved":
              return remove(event.name)
            case "ImageChanged":
              // The event does not say what the name points to, and the image may be gone again.
              return client.image(event.name).pipe(
                Effect.tap(put),
                Effect.flatMap(check.image),
                Effect.catchTag("ContainerdNotFound", () => remove(event.name))
              )
          }
        })
      )
      // It lists all images when it subscribes again: nothing is missed.
      yield* Background.keepRunning("containerd's events", follow, { maxPause: Duration.seconds(2) })

      /** A pull that has just ended is ahead of its event. */
      const lookUp = (key: string) =>
        client.image(key).pipe(
          Effect.catchTag("ContainerdNotFound", () => Effect.fail(new ContentNotFound({ content: key }))),
          Effect.catchTag(
            ["ContainerdUnavailable", "ContainerdFailed"],
            (error) => Effect.fail(unavailable("look up an image")(error))
          )
        )

      return ContentStore.of({
        ...directory,
        resolve: Effect.fn("ContainerdStore.resolve")(function*(reference) {
          const key = Reference.name(reference)
          const held = names.get(key)
          return held === undefined ? (yield* lookUp(key)).digest : held.digest
        }),
        manifestType: Effect.fn("ContainerdStore.manifestType")(function*(digest, name) {
          const kept = [...records.values()]
          const key = Option.map(Option.filter(name, ({ tag }) => tag !== undefined), Reference.name)
          if (Option.isSome(key) && records.get(key.value)?.digest !== digest) {
            // Where there is no such record, the others tell.
            const image = yield* Effect.option(lookUp(key.value))
            if (Option.isSome(image)) kept.push({ ...image.value, reference: name })
          }
          return yield* manifestType(digest, name, kept)
        }),
        names: Stream.suspend(() => Stream.fromIterable([...names.values()])),
        discard: (ingest) =>
          client.abortIngest(ingest).pipe(
            Effect.catchTag("ContainerdNotFound", () => Effect.void),
            Effect.mapError(unavailable("discard a download of containerd")),
            Effect.withSpan("ContainerdStore.discard")
          ),
        changes: feed.changesWith(directory.changes)
      })
    })
  )
