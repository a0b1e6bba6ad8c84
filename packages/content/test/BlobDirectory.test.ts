import { assert, describe, it } from "@effect/vitest"
import * as BlobDirectory from "@spegel-ts/content/BlobDirectory"
import { type ContentChange, IngestState } from "@spegel-ts/content/ContentStore"
import * as Digest from "@spegel-ts/oci/Digest"
import * as MediaType from "@spegel-ts/oci/MediaType"
import { testImage } from "@spegel-ts/testing/content/TestImage"
import { Effect, Option, Queue, Stream } from "effect"
import { execFileSync } from "node:child_process"
import { closeSync, fchmodSync, openSync, readdirSync, readFileSync } from "node:fs"
import { appendFile, mkdir, mkdtemp, rename, rm, symlink, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { text } from "node:stream/consumers"

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

/** Waits until a subscriber knows of `digest`: by its own change, or by listing after a loss. */
const awaitHeld = Effect.fnUntraced(function*(
  directory: BlobDirectory.BlobDirectory,
  changes: Queue.Dequeue<ContentChange>,
  digest: Digest.Digest
) {
  for (;;) {
    const change = yield* Queue.take(changes)
    if (change._tag === "BlobAdded" && change.digest === digest) return
    if (change._tag === "Resync" && (yield* Stream.runCollect(directory.digests)).includes(digest)) return
  }
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
      assert.deepStrictEqual(held, [])
    }))

  it.live("a pipe under a digest's name is not a blob, and opening it does not wait for a writer", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const blobs = join(root, "blobs", "sha256")
      const digest = Digest.ofBytes(Buffer.from("pipe"))
      yield* Effect.promise(() => mkdir(blobs, { recursive: true }))
      execFileSync("mkfifo", [join(blobs, Digest.hex(digest))])
      const directory = yield* BlobDirectory.make({ root })
      assert.strictEqual((yield* Effect.flip(Effect.scoped(directory.open(digest))))._tag, "ContentNotFound")
      assert.strictEqual((yield* Effect.flip(directory.size(digest)))._tag, "ContentNotFound")
    }))

  it.live("looks at manifests of several pieces, up to the size that containerd takes", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      yield* Effect.promise(() => mkdir(join(root, "blobs", "sha256"), { recursive: true }))
      const directory = yield* BlobDirectory.make({ root })
      const { manifest } = testImage("one")
      const typeOf = (text: string) =>
        Effect.flatMap(put(root, text), (digest) =>
          Effect.map(directory.manifestShape(digest), Option.map(({ mediaType }) => mediaType)))
      const none = Option.none<string>()
      assert.deepStrictEqual(yield* typeOf(manifest.toString()), Option.some<string>(MediaType.imageManifest))
      assert.deepStrictEqual(yield* typeOf("{\"no\": \"manifest\"}"), Option.some(""))
      assert.deepStrictEqual(yield* typeOf("{"), none)
      assert.deepStrictEqual(yield* typeOf(""), none)
      const largest = manifest.toString().padStart(MediaType.maxManifestSize)
      assert.deepStrictEqual(yield* typeOf(largest), Option.some<string>(MediaType.imageManifest))
      assert.deepStrictEqual(yield* typeOf(`${largest} `), none)
    }))

  it.live("leaves the event loop to others while it looks at a large manifest", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      yield* Effect.promise(() => mkdir(join(root, "blobs", "sha256"), { recursive: true }))
      const directory = yield* BlobDirectory.make({ root })
      const digest = yield* put(root, testImage("one").manifest.toString().padEnd(MediaType.maxManifestSize))
      let turns = 0
      let looking = true
      const count = () => {
        turns++
        if (looking) setImmediate(count)
      }
      count()
      yield* directory.manifestShape(digest)
      looking = false
      assert.isAtLeast(turns, 30)
    }))

  it.live("follows when blobs is moved away and made anew", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      yield* Effect.promise(() => mkdir(join(root, "blobs", "sha256"), { recursive: true }))
      const directory = yield* BlobDirectory.make({ root })
      const changes = yield* subscribe(directory)
      yield* Effect.promise(async () => {
        await rename(join(root, "blobs"), join(root, "old"))
        await mkdir(join(root, "blobs"))
      })
      assert.strictEqual((yield* Queue.take(changes))._tag, "Resync")
      yield* Effect.promise(() => mkdir(join(root, "blobs", "sha256")))
      yield* awaitHeld(directory, changes, yield* put(root, "in the new one"))
    }))

  it.live("waits for a directory that is not there, nor those above it, as before a node's first image", () =>
    Effect.gen(function*() {
      const root = join(yield* temporary, "containerd", "content")
      const directory = yield* BlobDirectory.make({ root })
      const absent = Digest.ofBytes(Buffer.from("first"))
      const changes = yield* subscribe(directory)
      assert.deepStrictEqual(yield* Stream.runCollect(directory.digests), [])
      assert.deepStrictEqual(yield* Stream.runCollect(directory.inProgress), [])
      assert.strictEqual((yield* Effect.flip(directory.size(absent)))._tag, "ContentNotFound")
      yield* Effect.promise(() => mkdir(join(root, "blobs", "sha256"), { recursive: true }))
      yield* awaitHeld(directory, changes, yield* put(root, "first"))
      assert.strictEqual(yield* directory.size(absent), 5)
      yield* awaitHeld(directory, changes, yield* put(root, "second"))
    }))

  const ways: ReadonlyArray<readonly [name: string, replace: (root: string) => Promise<void>]> = [
    ["is removed", (root) => rm(root, { recursive: true })],
    ["is moved away", (root) => rename(root, `${root}.old`)],
    ["moves with the one above it", (root) => rename(dirname(root), `${dirname(root)}.old`)]
  ]
  for (const [name, vanish] of ways) {
    it.live(`goes on when the directory ${name}, and when another comes in its place`, () =>
      Effect.gen(function*() {
        const root = join(yield* temporary, "containerd", "content")
        const blobs = join(root, "blobs", "sha256")
        yield* Effect.promise(() => mkdir(blobs, { recursive: true }))
        const directory = yield* BlobDirectory.make({ root })
        yield* put(root, "before")
        const changes = yield* subscribe(directory)
        yield* Effect.promise(() => vanish(root))
        while ((yield* Stream.runCollect(directory.digests)).length > 0) yield* Queue.take(changes)
        yield* Effect.promise(() => mkdir(blobs, { recursive: true }))
        for (const text of ["after", "and again"]) yield* awaitHeld(directory, changes, yield* put(root, text))
      }))
  }

  const mounts = process.getuid?.() === 0
  if (!mounts && process.env["CI"] === "true") throw new Error("the test of a disk that is mounted late needs root")
  it.live.skipIf(!mounts)(
    `follows a disk that is mounted late${mounts ? "" : " (skipped: needs root)"}`,
    () =>
      Effect.gen(function*() {
        const root = yield* temporary
        const directory = yield* BlobDirectory.make({ root })
        const changes = yield* subscribe(directory)
        yield* Effect.acquireRelease(
          Effect.sync(() => execFileSync("mount", ["-t", "tmpfs", "tmpfs", root])),
          () => Effect.sync(() => execFileSync("umount", ["--lazy", root]))
        )
        yield* Effect.promise(() => mkdir(join(root, "blobs", "sha256"), { recursive: true }))
        yield* awaitHeld(directory, changes, yield* put(root, "on the disk"))
      })
  )

  it.live(
    "says that events were lost when the kernel's queue overflowed, which no event tells",
    () =>
      Effect.gen(function*() {
        const root = yield* temporary
        const blobs = join(root, "blobs", "sha256")
        yield* Effect.promise(() => mkdir(blobs, { recursive: true }))
        const directory = yield* BlobDirectory.make({ root })
        const changes = yield* subscribe(directory)
        const limit = Number(readFileSync("/proc/sys/fs/inotify/max_queued_events", "utf8"))
        const last = Digest.ofBytes(Buffer.from("last"))
        // In one turn of the event loop, and of a kind that changes nothing: only their number shows that events were lost.
        // Two files by turns, since the kernel joins equal events that follow each other.
        const files = ["one", "two"].map((name) => openSync(join(root, "blobs", "sha256", name), "w"))
        for (let events = 0; events <= limit; events++) fchmodSync(files[events % 2] ?? 0, 0o644)
        files.forEach(closeSync)
        closeSync(openSync(join(blobs, Digest.hex(last)), "w"))
        yield* awaitHeld(directory, changes, last)
      }),
    30_000
  )

  it.live("reads downloads under way, and passes over what is none", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const digest = Digest.ofBytes(Buffer.from("layer"))
      const ingest = (name: string, ref: string, total: string | undefined, data: string) =>
        Effect.promise(async () => {
          const path = join(root, "ingest", name)
          await mkdir(path, { recursive: true })
          await writeFile(join(path, "ref"), ref)
          if (total !== undefined) await writeFile(join(path, "total"), total)
          await writeFile(join(path, "data"), data)
        })
      const directory = yield* BlobDirectory.make({ root })
      assert.deepStrictEqual(yield* Stream.runCollect(directory.inProgress), [])
      yield* ingest("a", `k8s.io/1/layer-${digest}`, "24", "half")
      yield* ingest("b", `k8s.io/2/manifest-app@${digest}`, "7\n", "")
      yield* ingest("c", `layer-${digest}`, "24", "")
      yield* ingest("d", `moby/5/layer-host/1/app@${digest}`, "24", "")
      yield* ingest("no-total", `k8s.io/3/layer-${digest}`, undefined, "")
      yield* ingest("no-digest", "k8s.io/4/some-upload", "24", "")
      yield* ingest("no-number", `k8s.io/5/layer-${digest}`, "0x10", "")
      yield* ingest("huge-ref", `${"x".repeat(10_000)}-${digest}`, "24", "")
      yield* Effect.promise(async () => {
        await mkdir(join(root, "ingest", "just-made"))
        await writeFile(join(root, "ingest", "file"), "")
      })
      const found = yield* Stream.runCollect(directory.inProgress)
      assert.deepStrictEqual(
        new Map(found.map(({ namespace, path, ref, size, written }) => [path, [namespace, ref, size, written]])),
        new Map([
          [join(root, "ingest", "a", "data"), ["k8s.io", `layer-${digest}`, 24, 4]],
          [join(root, "ingest", "b", "data"), ["k8s.io", `manifest-app@${digest}`, 7, 0]],
          [join(root, "ingest", "c", "data"), ["", `layer-${digest}`, 24, 0]],
          [join(root, "ingest", "d", "data"), ["moby", `layer-host/1/app@${digest}`, 24, 0]]
        ])
      )
    }))

  it.live("follows the file of a download, and not its name", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const directory = yield* BlobDirectory.make({ root })
      const digest = Digest.ofBytes(Buffer.from("layer"))
      const blob = join(root, "blobs", "sha256", Digest.hex(digest))
      const pathOf = (name: string) => join(root, "ingest", name, "data")
      const begin = Effect.fnUntraced(function*(name: string) {
        yield* Effect.promise(async () => {
          await mkdir(join(root, "ingest", name), { recursive: true })
          await writeFile(join(root, "ingest", name, "ref"), `k8s.io/1/layer-${digest}`)
          await writeFile(join(root, "ingest", name, "total"), "5")
          await writeFile(pathOf(name), "lay")
        })
        const ingests = yield* Stream.runCollect(directory.inProgress)
        return yield* directory.openIngest(
          ingests.find(({ path }) => path === pathOf(name)) ?? assert.fail(`${name} is not listed`)
        )
      })
      const does = (run: () => Promise<void>) => Effect.promise(run)
      yield* does(async () => void await mkdir(dirname(blob), { recursive: true }))

      const committed = yield* begin("a")
      const other = yield* begin("b")
      const replaced = yield* begin("c")
      const begun = yield* committed.state
      assert.deepInclude(begun, { _tag: "InProgress", written: 3 })
      yield* does(() => appendFile(pathOf("a"), "er"))
      assert.deepInclude(yield* committed.state, { _tag: "InProgress", written: 5 })
      yield* does(() => rename(pathOf("a"), blob))
      assert.deepStrictEqual(yield* committed.state, IngestState.Committed())
      // Somebody else's blob of this digest says nothing of this download.
      assert.deepInclude(yield* other.state, { _tag: "InProgress", written: 3 })
      yield* does(() => rm(pathOf("b")))
      assert.deepStrictEqual(yield* other.state, IngestState.Deleted({ written: 3 }))
      assert.strictEqual(yield* Effect.promise(() => text(other.chunks(0))), "lay")
      assert.strictEqual(yield* Effect.promise(() => text(other.chunks(2))), "y")
      assert.strictEqual(yield* Effect.promise(() => text(other.chunks(3))), "")
      // Nor does a later download at the same place.
      yield* does(async () => {
        await rename(pathOf("c"), join(root, "elsewhere"))
        await writeFile(pathOf("c"), "new")
      })
      assert.deepStrictEqual(yield* replaced.state, IngestState.Moved())
      yield* does(() => rm(blob))
      assert.deepStrictEqual(yield* committed.state, IngestState.Deleted({ written: 5 }))
    }))

  it.live("names a root that is not a directory", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const file = join(root, "file")
      yield* Effect.promise(() => writeFile(file, ""))
      assert.strictEqual(
        (yield* Effect.flip(BlobDirectory.make({ root: file }))).message,
        `open the content store: ${file} is not a directory`
      )
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
