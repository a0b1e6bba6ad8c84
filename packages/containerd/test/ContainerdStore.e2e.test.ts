import { assert, describe, it } from "@effect/vitest"
import { ContainerdClient, type ImageEvent } from "@spegel-ts/containerd/ContainerdClient"
import * as ContainerdStore from "@spegel-ts/containerd/ContainerdStore"
import { ContentStore } from "@spegel-ts/content/ContentStore"
import { contentStoreConformance } from "@spegel-ts/content/ContentStoreConformance"
import * as OciLayoutWriter from "@spegel-ts/content/OciLayoutWriter"
import { Descriptor } from "@spegel-ts/oci/Descriptor"
import * as Digest from "@spegel-ts/oci/Digest"
import * as MediaType from "@spegel-ts/oci/MediaType"
import * as Reference from "@spegel-ts/oci/Reference"
import * as ContainerdDaemon from "@spegel-ts/testing/containerd/ContainerdDaemon"
import * as ContainerdPackages from "@spegel-ts/testing/containerd/ContainerdPackages"
import { testImage } from "@spegel-ts/testing/content/TestImage"
import * as Command from "@spegel-ts/testing/process/Command"
import { Context, Effect, Layer, Logger, Option, Queue, Result, Schedule, Stream } from "effect"
import { existsSync } from "node:fs"
import { mkdir, rename, rm, symlink, writeFile } from "node:fs/promises"
import { createServer } from "node:net"
import { join } from "node:path"

type Daemon = Effect.Success<ReturnType<typeof ContainerdDaemon.start>>

const importObjects = Effect.fnUntraced(function*(
  daemon: Daemon,
  reference: Reference.Reference,
  image: { readonly objects: ReadonlyArray<Uint8Array>; readonly descriptor: Descriptor }
) {
  const root = join(daemon.directory, `image-${Digest.hex(image.descriptor.digest)}`)
  const writer = yield* OciLayoutWriter.make({ root })
  yield* Effect.forEach(image.objects, (bytes) =>
    Effect.scoped(Effect.gen(function*() {
      const ingest = yield* writer.ingest(Digest.ofBytes(bytes), bytes.length)
      yield* ingest.write(bytes)
      yield* ingest.commit
    })))
  yield* writer.tag(reference, image.descriptor)
  yield* Effect.promise(() => rm(join(root, "ingest"), { recursive: true }))
  const archive = `${root}.tar`
  yield* Command.run("tar", ["-cf", archive, "-C", root, "."])
  yield* daemon.ctr("images", "import", "--no-unpack", "--all-platforms", archive)
})

const importImage = Effect.fnUntraced(function*(daemon: Daemon, reference: Reference.Reference, seed: string) {
  const { config, descriptor, layer, manifest } = testImage(seed)
  yield* importObjects(daemon, reference, { objects: [layer, config, manifest], descriptor })
  return { manifest: descriptor, layer: { digest: Digest.ofBytes(layer), bytes: layer } }
})

const storeOf = ({ contentPath, socket }: Pick<Daemon, "contentPath" | "socket">) =>
  ContainerdStore.layer({ contentPath }).pipe(
    Layer.provideMerge(ContainerdClient.layer({ socket, namespace: "k8s.io" }))
  )

const missing = ContainerdDaemon.missingPrerequisite()

describe.skipIf(missing !== undefined)(`containerd${missing === undefined ? "" : ` (skipped: ${missing})`}`, () => {
  contentStoreConformance(
    "containerd",
    Effect.gen(function*() {
      const daemon = yield* ContainerdDaemon.start()
      return {
        layer: storeOf(daemon),
        fixture: {
          addImage: (reference, seed) => importImage(daemon, reference, seed).pipe(Effect.orDie),
          removeImage: (reference) =>
            Effect.orDie(Effect.asVoid(daemon.ctr("images", "rm", "--sync", Reference.print(reference))))
        }
      }
    })
  )

  it.live("finds the content directory and the version", () =>
    Effect.gen(function*() {
      const daemon = yield* ContainerdDaemon.start()
      yield* Effect.gen(function*() {
        const client = yield* ContainerdClient
        assert.strictEqual(yield* client.contentRoot, daemon.contentPath)
        assert.match(yield* client.version, /^v?\d+\.\d+/)
      }).pipe(Effect.provide(ContainerdClient.layer({ socket: daemon.socket, namespace: "k8s.io" })))
    }), 30_000)

  it.live(
    "knows a manifest as what its record calls it, at once, and nothing else as a manifest",
    () =>
      Effect.gen(function*() {
        const daemon = yield* ContainerdDaemon.start()
        const { config, descriptor, layer } = testImage("one")
        const fields = {
          config: {
            mediaType: "application/vnd.docker.container.image.v1+json",
            digest: Digest.ofBytes(config),
            size: config.length
          },
          layers: [{
            mediaType: "application/vnd.docker.image.rootfs.diff.tar",
            digest: Digest.ofBytes(layer),
            size: layer.length
          }]
        }
        const v1 = Result.getOrThrow(Reference.parse("registry.example/app:v1"))
        yield* Effect.gen(function*() {
          const store = yield* ContentStore
          for (const mediaType of [MediaType.dockerManifest, MediaType.imageManifest]) {
            const manifest = Buffer.from(JSON.stringify({ ...fields, mediaType: "a/b", writtenAs: mediaType }))
            const digest = Digest.ofBytes(manifest)
            yield* importObjects(daemon, v1, {
              objects: [layer, config, manifest],
              descriptor: new Descriptor({ ...descriptor, digest, mediaType, size: manifest.length })
            })
            assert.deepStrictEqual(yield* store.manifestType(digest, Option.some(v1)), Option.some(mediaType))
            assert.deepStrictEqual(yield* store.manifestType(Digest.ofBytes(config), Option.some(v1)), Option.none())
            // The name follows by an event.
            const held = yield* Effect.repeat(store.resolve(v1), {
              schedule: Schedule.spaced("20 millis"),
              until: (held) => held === digest,
              times: 500
            })
            assert.strictEqual(held, digest)
          }
        }).pipe(Effect.provide(storeOf(daemon)))
      }),
    60_000
  )

  it.live("follows again after a restart, and says that it has missed something", () =>
    Effect.gen(function*() {
      const daemon = yield* ContainerdDaemon.start()
      const v1 = Result.getOrThrow(Reference.parse("registry.example/app:v1"))
      yield* Effect.gen(function*() {
        const client = yield* ContainerdClient
        const store = yield* ContentStore
        const events = yield* Queue.unbounded<ImageEvent>()
        yield* client.events.pipe(
          Stream.retry(Schedule.spaced("100 millis")),
          Stream.runForEach((event) => Queue.offer(events, event)),
          Effect.forkScoped
        )
        assert.strictEqual((yield* Queue.take(events))._tag, "Subscribed")
        yield* daemon.restart
        assert.strictEqual((yield* Queue.take(events))._tag, "Subscribed")
        const image = yield* importImage(daemon, v1, "one")
        assert.strictEqual((yield* Queue.take(events))._tag, "ImageChanged")
        assert.strictEqual(yield* store.resolve(v1), image.manifest.digest)
        // The store has subscribed again, too.
        yield* Stream.runCollect(store.names).pipe(
          Effect.repeat({ schedule: Schedule.spaced("50 millis"), until: (names) => names.length === 1 })
        )
      }).pipe(Effect.provide(storeOf(daemon)))
    }), 60_000)

  it.live("says what is wrong with a socket or a content directory", () =>
    Effect.gen(function*() {
      const daemon = yield* ContainerdDaemon.start()
      const messageOf = (paths: Pick<Daemon, "contentPath" | "socket">) =>
        Layer.build(Layer.fresh(storeOf(paths))).pipe(Effect.flip, Effect.map(({ message }) => message))

      const absent = join(daemon.directory, "absent.sock")
      assert.include(yield* messageOf({ ...daemon, socket: absent }), `${absent} does not exist`)

      const file = join(daemon.directory, "file")
      yield* Effect.promise(() => writeFile(file, ""))
      assert.include(yield* messageOf({ ...daemon, socket: file }), `nothing listens on ${file}`)

      const other = join(daemon.directory, "other.sock")
      yield* Effect.acquireRelease(
        Effect.sync(() => createServer((socket) => socket.end("HTTP/1.1 400 Bad Request\r\n\r\n")).listen(other)),
        (server) => Effect.sync(() => server.close())
      )
      assert.include(yield* messageOf({ ...daemon, socket: other }), "does not answer as containerd does")

      const message = yield* messageOf({ ...daemon, contentPath: file })
      assert.include(message, `${file} is not a directory`)
      assert.include(message, "the content path")
    }), 60_000)

  /** Logs of a store that is told to read a directory, and the store itself. */
  const watched = Effect.fnUntraced(function*(paths: Pick<Daemon, "contentPath" | "socket">) {
    const lines: Array<string> = []
    const logger = Logger.make(({ logLevel, message }) => void lines.push(`${logLevel} ${String(message)}`))
    const context = yield* Layer.build(Layer.fresh(storeOf(paths))).pipe(Effect.provide(Logger.layer([logger])))
    const warnings = () => lines.filter((line) => line.startsWith("Warn"))
    const until = (done: () => boolean, what: string) =>
      Effect.sync(done).pipe(
        Effect.filterOrFail((done) => done, () => `${what}\n${lines.join("\n")}`),
        Effect.retry({ schedule: Schedule.spaced("50 millis"), times: 400 })
      )
    return { store: Context.get(context, ContentStore), lines, warnings, until }
  })
  const reference = (text: string) => Result.getOrThrow(Reference.parse(text))

  it.live("says once that a directory is another daemon's, though both have an image", () =>
    Effect.gen(function*() {
      const [other, daemon] = [yield* ContainerdDaemon.start(), yield* ContainerdDaemon.start()]
      const shared = reference("registry.example/shared:v1")
      for (const each of [other, daemon]) yield* importImage(each, shared, "shared")
      // As in a container: containerd's own path is out of sight.
      const hidden = join(daemon.directory, "hidden")
      yield* importImage(daemon, reference("registry.example/own:v1"), "own")
      const wrong = yield* watched({ socket: daemon.socket, contentPath: other.contentPath })
      yield* wrong.until(() => wrong.warnings().length > 0, "no warning")
      yield* importImage(daemon, reference("registry.example/own:v2"), "more")
      yield* Effect.sleep("2 seconds")
      assert.strictEqual(wrong.warnings().length, 1)
      const [warning] = wrong.warnings()
      for (
        const words of [other.contentPath, daemon.contentPath, "registry.example/own:v", "the content path"]
      ) {
        assert.include(warning, words)
      }
      // Nothing is said of the same directory under another name.
      yield* Effect.promise(() => symlink(daemon.contentPath, hidden))
      const right = yield* watched({ socket: daemon.socket, contentPath: hidden })
      yield* importImage(daemon, reference("registry.example/own:v3"), "most")
      yield* right.until(() => right.lines.length === 0, "something was said")
      yield* Effect.sleep("2 seconds")
      assert.deepStrictEqual(right.lines, [])
    }), 90_000)

  it.live(
    "says that a directory is not containerd's before there is an image, where both can be seen",
    () =>
      Effect.gen(function*() {
        const [other, daemon] = [yield* ContainerdDaemon.start(), yield* ContainerdDaemon.start()]
        for (const { contentPath } of [other, daemon]) {
          yield* Effect.promise(() => mkdir(contentPath, { recursive: true }))
        }
        const wrong = yield* watched({ socket: daemon.socket, contentPath: other.contentPath })
        yield* wrong.until(() => wrong.warnings().length === 1, "no warning")
        assert.include(wrong.warnings()[0], daemon.contentPath)
      }),
    60_000
  )

  for (const version of ContainerdPackages.versions) {
    it.live(
      `begins without the directory, and follows when containerd ${version} makes it`,
      () =>
        Effect.gen(function*() {
          const daemon = yield* ContainerdDaemon.start({ programs: yield* ContainerdPackages.fetch(version) })
          // 1.6 makes it at its start, and not again; the others with the first image.
          const away = `${daemon.contentPath}.away`
          if (existsSync(daemon.contentPath)) yield* Effect.promise(() => rename(daemon.contentPath, away))
          const { lines, store, until, warnings } = yield* watched(daemon)
          assert.deepStrictEqual(lines.map((line) => line.split(" ")[0]), ["Info"])
          assert.deepStrictEqual(yield* Stream.runCollect(store.digests), [])
          const told: Array<string> = []
          yield* store.changes.pipe(
            Stream.runForEach((change) =>
              change._tag === "Resync"
                ? Effect.map(Stream.runCollect(store.digests), (digests) => void told.push(...digests)).pipe(
                  Effect.orDie
                )
                : Effect.sync(() => change._tag === "BlobAdded" && told.push(change.digest))
            ),
            Effect.forkScoped
          )
          if (existsSync(away)) yield* Effect.promise(() => rename(away, daemon.contentPath))
          const image = yield* importImage(daemon, reference("registry.example/first:v1"), "first")
          yield* until(() => told.includes(image.manifest.digest) && told.includes(image.layer.digest), "not followed")
          yield* Effect.sleep("2 seconds")
          assert.deepStrictEqual(warnings(), [])
        }),
      120_000
    )
  }
})
