import { assert, describe, it } from "@effect/vitest"
import * as BlobDirectory from "@spegel-ts/content/BlobDirectory"
import type { ContentChange } from "@spegel-ts/content/ContentStore"
import * as Digest from "@spegel-ts/oci/Digest"
import { Effect, Queue, Stream } from "effect"
import { readdirSync } from "node:fs"
import { mkdir, mkdtemp, rename, rm, symlink, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"

const temporary = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "blobs-"))),
  (directory) => Effect.promise(() => rm(directory, { recursive: true, force: true }))
)

const put = (root: string, text: string) => {
  const bytes = Buffer.from(text)
  const digest = Digest.ofBytes(bytes)
  return Effect.promise(async () => {
    const temporary = join(root, `tmp-${Digest.hex(digest)}`)
    await writeFile(temporary, bytes)
    await rename(temporary, join(root, "blobs", "sha256", Digest.hex(digest)))
    return digest
  })
}

const subscribe = (directory: BlobDirectory.BlobDirectory) =>
  Effect.gen(function*() {
    const queue = yield* Queue.unbounded<ContentChange>()
    yield* directory.changes.pipe(Stream.runForEach((change) => Queue.offer(queue, change)), Effect.forkScoped)
    assert.strictEqual((yield* Queue.take(queue))._tag, "Resync")
    return queue
  })

describe("BlobDirectory", () => {
  it.live("follows a new node, whose blobs directory comes later", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const directory = yield* BlobDirectory.make({ root })
      assert.deepStrictEqual(yield* Stream.runCollect(directory.digests), [])
      const changes = yield* subscribe(directory)
      yield* Effect.promise(() => mkdir(join(root, "blobs", "sha256"), { recursive: true }))
      yield* put(root, "first")
      // The directory's coming is told as a loss: whoever listens lists again.
      assert.strictEqual((yield* Queue.take(changes))._tag, "Resync")
      const second = yield* put(root, "second")
      for (;;) {
        const change = yield* Queue.take(changes)
        if (change._tag === "BlobAdded" && change.digest === second) break
      }
      assert.strictEqual((yield* Stream.runCollect(directory.digests)).length, 2)
    }))

  it.live("loses nothing of a burst", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      yield* Effect.promise(() => mkdir(join(root, "blobs", "sha256"), { recursive: true }))
      const directory = yield* BlobDirectory.make({ root })
      const changes = yield* subscribe(directory)
      const digests = new Set<string>()
      for (let index = 0; index < 2000; index++) digests.add(yield* put(root, `blob ${index}`))
      while (digests.size > 0) {
        const change = yield* Queue.take(changes)
        if (change._tag === "Resync") {
          for (const digest of yield* Stream.runCollect(directory.digests)) digests.delete(digest)
        } else if (change._tag === "BlobAdded") digests.delete(change.digest)
      }
    }), 30_000)

  it.live("takes only regular files with a digest for a name", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const blobs = join(root, "blobs", "sha256")
      const linked = Digest.ofBytes(Buffer.from("linked"))
      const folder = Digest.ofBytes(Buffer.from("folder"))
      yield* Effect.promise(async () => {
        await mkdir(blobs, { recursive: true })
        await writeFile(join(blobs, "README"), "")
        await writeFile(join(blobs, `${"0".repeat(64)}.tmp`), "")
        await symlink("/etc/hostname", join(blobs, Digest.hex(linked)))
        await mkdir(join(blobs, Digest.hex(folder)))
      })
      const directory = yield* BlobDirectory.make({ root })
      for (const digest of [linked, folder]) {
        assert.strictEqual((yield* Effect.flip(Effect.scoped(directory.open(digest))))._tag, "ContentNotFound")
      }
      const held = yield* Stream.runCollect(directory.digests)
      assert.isFalse(held.some((digest) => digest.includes("README") || digest.includes("tmp")))
    }))

  it.live("leaves no file open", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      yield* Effect.promise(() => mkdir(join(root, "blobs", "sha256"), { recursive: true }))
      const digest = yield* put(root, "blob")
      const descriptors = () => readdirSync("/proc/self/fd").length
      const before = descriptors()
      yield* Effect.scoped(Effect.gen(function*() {
        const directory = yield* BlobDirectory.make({ root })
        yield* subscribe(directory)
        yield* Effect.forEach(Array.from({ length: 50 }), () => directory.open(digest))
        assert.isAtLeast(descriptors(), before + 50)
      }))
      assert.isAtMost(descriptors(), before)
    }))
})
