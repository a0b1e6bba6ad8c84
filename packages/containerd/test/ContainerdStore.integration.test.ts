import { assert, describe, it } from "@effect/vitest"
import { ContainerdClient, type ImageEvent } from "@spegel-ts/containerd/ContainerdClient"
import * as ContainerdStore from "@spegel-ts/containerd/ContainerdStore"
import { ContentStore } from "@spegel-ts/content/ContentStore"
import { contentStoreConformance } from "@spegel-ts/content/ContentStoreConformance"
import * as OciLayoutWriter from "@spegel-ts/content/OciLayoutWriter"
import * as Digest from "@spegel-ts/oci/Digest"
import * as Reference from "@spegel-ts/oci/Reference"
import { Effect, Layer, Queue, Result, Schedule, Stream } from "effect"
import { spawn } from "node:child_process"
import { rm, writeFile } from "node:fs/promises"
import { createServer } from "node:net"
import { join } from "node:path"
import { testImage } from "../../content/test/TestImage.ts"
import * as ContainerdDaemon from "./ContainerdDaemon.ts"

type Daemon = Effect.Success<ReturnType<typeof ContainerdDaemon.start>>

const importImage = Effect.fnUntraced(function*(daemon: Daemon, reference: Reference.Reference, seed: string) {
  const { config, descriptor, layer, manifest } = testImage(seed)
  const root = join(daemon.directory, `image-${seed}`)
  const writer = yield* OciLayoutWriter.make({ root })
  yield* Effect.forEach([layer, config, manifest], (bytes) =>
    Effect.scoped(Effect.gen(function*() {
      const ingest = yield* writer.ingest(Digest.ofBytes(bytes), bytes.length)
      yield* ingest.write(bytes)
      yield* ingest.commit
    })))
  yield* writer.tag(reference, descriptor)
  yield* Effect.promise(() => rm(join(root, "ingest"), { recursive: true }))
  const archive = join(daemon.directory, `${seed}.tar`)
  yield* ContainerdDaemon.run("tar", "-cf", archive, "-C", root, ".")
  yield* daemon.ctr("images", "import", "--no-unpack", "--all-platforms", archive)
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

  it.live("discards what was downloaded of one digest, and nothing else", () =>
    Effect.gen(function*() {
      const daemon = yield* ContainerdDaemon.start()
      const [first, second] = [Digest.ofBytes(Buffer.from("one")), Digest.ofBytes(Buffer.from("two"))] as const
      const refs = [`layer-${first}`, `config-registry.example/app@${first}`, `layer-${second}`]
      for (const ref of refs) {
        yield* Effect.acquireRelease(
          Effect.sync(() => {
            const args = ["--address", daemon.socket, "--namespace", "k8s.io", "content", "ingest"]
            const child = spawn("ctr", [...args, "--expected-size", "1000", ref], {
              stdio: ["pipe", "ignore", "ignore"]
            })
            child.stdin.on("error", () => {}).write("some bytes of a layer")
            return child
          }),
          (child) => Effect.sync(() => child.kill("SIGKILL"))
        )
      }
      yield* Effect.gen(function*() {
        const client = yield* ContainerdClient
        const store = yield* ContentStore
        yield* client.ingests.pipe(
          Effect.repeat({ schedule: Schedule.spaced("20 millis"), until: (found) => found.length === refs.length })
        )
        yield* store.discard(first)
        assert.deepStrictEqual(yield* client.ingests, [`layer-${second}`])
        yield* store.discard(first)
      }).pipe(Effect.provide(storeOf(daemon)))
    }), 30_000)

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

      const nowhere = join(daemon.directory, "nowhere")
      const message = yield* messageOf({ ...daemon, contentPath: nowhere })
      assert.include(message, `${nowhere} does not exist`)
      assert.include(message, "--containerd-content-path")
    }), 60_000)
})
