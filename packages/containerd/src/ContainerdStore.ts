/**
 * The `ContentStore` of a containerd daemon. Blobs are read as files of its content directory, which costs a tenth of
 * reading them over gRPC and is the same in all versions; names come from the Images API, kept in memory and followed
 * by events.
 */
import * as Background from "@spegel-ts/background/Background"
import * as BlobDirectory from "@spegel-ts/content/BlobDirectory"
import {
  ContentChange,
  ContentNotFound,
  ContentStore,
  type Name,
  StoreUnavailable
} from "@spegel-ts/content/ContentStore"
import type * as Digest from "@spegel-ts/oci/Digest"
import * as Reference from "@spegel-ts/oci/Reference"
import { Duration, Effect, Layer, Option, PubSub, Result, Stream } from "effect"
import {
  ContainerdClient,
  type ContainerdFailed,
  type ContainerdUnavailable,
  type Image,
  registryImages
} from "./ContainerdClient.ts"

export interface ContainerdStoreOptions {
  /**
   * The content directory as this process sees it, as a rule `/var/lib/containerd/io.containerd.content.v1.content`.
   * Mount this directory itself: containerd's root above it is closed to other users.
   */
  readonly contentPath: string
}

const unavailable = (operation: string) => (cause: ContainerdUnavailable | ContainerdFailed) =>
  new StoreUnavailable({ operation, hint: cause.message, cause })

/**
 * An image record is a name when it has a registry and a tag: not `name@sha256:...`, not CRI's `sha256:<config>`, and
 * not a short form that a person made with `ctr`, which no pull asks for.
 */
const toName = (image: { readonly name: string; readonly digest: Digest.Digest }): Option.Option<Name> => {
  const reference = Reference.parse(image.name)
  return Result.isSuccess(reference) && reference.success.tag !== undefined &&
      Reference.name(reference.success) === image.name
    ? Option.some({ reference: reference.success, digest: image.digest })
    : Option.none()
}

/** Fails at once where the content directory is missing or containerd does not answer; later it waits for it. */
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
      const names = new Map<string, Name>()
      const changes = yield* PubSub.unbounded<ContentChange>()

      const put = (image: Image) => {
        const name = toName(image)
        if (Option.isNone(name)) return
        const key = Reference.name(name.value.reference)
        if (names.get(key)?.digest === name.value.digest) return
        names.set(key, name.value)
        PubSub.publishUnsafe(changes, ContentChange.NameAdded(name.value))
      }
      const remove = (key: string) => {
        const held = names.get(key)
        if (held === undefined) return
        names.delete(key)
        PubSub.publishUnsafe(changes, ContentChange.NameRemoved({ reference: held.reference }))
      }

      const list = Effect.map(client.images([registryImages]), (images) => {
        const held = new Set(images.map(({ name }) => name))
        for (const key of names.keys()) {
          if (!held.has(key)) remove(key)
        }
        images.forEach(put)
      })
      yield* Effect.mapError(list, unavailable("list containerd's images"))

      const follow = client.events.pipe(
        Stream.runForEach((event) => {
          switch (event._tag) {
            case "Subscribed":
              return list
            case "ImageRemoved":
              return Effect.sync(() => remove(event.name))
            case "ImageChanged":
              // The event does not say what the name points to, and the image may be gone again.
              return client.image(event.name).pipe(
                Effect.map(put),
                Effect.catchTag("ContainerdNotFound", () => Effect.sync(() => remove(event.name)))
              )
          }
        })
      )
      // It lists all images when it subscribes again: nothing is missed.
      yield* Background.keepRunning("containerd's events", follow, { maxPause: Duration.seconds(2) })

      return ContentStore.of({
        ...directory,
        resolve: Effect.fn("ContainerdStore.resolve")(function*(reference) {
          const key = Reference.name(reference)
          const held = names.get(key)
          if (held !== undefined) return held.digest
          // A pull that has just ended is ahead of its event.
          const image = yield* client.image(key).pipe(
            Effect.catchTag("ContainerdNotFound", () => Effect.fail(new ContentNotFound({ content: key }))),
            Effect.catchTag(["ContainerdUnavailable", "ContainerdFailed"], (error) =>
              Effect.fail(unavailable("look up an image")(error)))
          )
          return image.digest
        }),
        names: Stream.suspend(() =>
          Stream.fromIterable([...names.values()])
        ),
        discard: Effect.fn("ContainerdStore.discard")(
          function*(digest) {
            const refs = yield* client.ingests
            yield* Effect.forEach(
              // `<kind>-<digest>`, with an image name in between where the descriptor has one.
              refs.filter((ref) => ref.endsWith(`-${digest}`) || ref.endsWith(`@${digest}`)),
              (ref) => Effect.catchTag(client.abortIngest(ref), "ContainerdNotFound", () => Effect.void),
              { discard: true }
            )
          },
          Effect.mapError(unavailable("discard a download of containerd"))
        ),
        changes: Stream.unwrap(Effect.map(
          PubSub.subscribe(changes),
          (subscription) => Stream.merge(directory.changes, Stream.fromSubscription(subscription))
        ))
      })
    })
  )
