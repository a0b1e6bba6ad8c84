import { assert, describe, it } from "@effect/vitest"
import { Identity, isForeign, isKept, type Owner, ownerOf } from "@spegel-ts/router/Identity"
import { Context, Effect, Layer, Logger, References } from "effect"
import { execFileSync, spawnSync } from "node:child_process"
import { generateKeyPairSync } from "node:crypto"
import {
  chmod,
  chown,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  truncate,
  writeFile
} from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"

const temporary = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "identity-"))),
  (directory) => Effect.promise(() => rm(directory, { recursive: true, force: true }))
)

/** Starts a node; returns its id and its warnings. */
const start = Effect.fnUntraced(function*(dataDir: string, owner: Owner = {}) {
  const warnings: Array<string> = []
  const logger = Logger.make(({ logLevel, message }) => {
    if (logLevel === "Warn") warnings.push(String(message))
  })
  const context = yield* Layer.build(Layer.fresh(Identity.layer({ dataDir, owner }))).pipe(
    Effect.scoped,
    Effect.provide(Logger.layer([logger])),
    Effect.provideService(References.MinimumLogLevel, "Debug")
  )
  return { id: Context.get(context, Identity).id, warnings }
})

const pem = (type: "ed25519" | "ed448") =>
  (type === "ed25519" ? generateKeyPairSync("ed25519") : generateKeyPairSync("ed448")).privateKey
    .export({ format: "pem", type: "pkcs8" }).toString()

describe("Identity", () => {
  it.live("is kept in a file that only its user can read, and leaves no other file behind", () =>
    Effect.gen(function*() {
      const directory = join(yield* temporary, "made")
      assert.isFalse(yield* isKept(directory))
      const first = yield* start(directory, { node: "worker-1" })
      assert.isTrue(yield* isKept(directory))
      assert.match(first.id, /^12D3Koo/)
      assert.deepStrictEqual(yield* start(directory, { node: "worker-1" }), first)
      assert.deepStrictEqual(first.warnings, [])
      const files = yield* Effect.promise(() => readdir(directory))
      assert.deepStrictEqual(files.toSorted(), ["private.key", "private.key.owner"])
      assert.strictEqual((yield* Effect.promise(() => stat(join(directory, "private.key")))).mode & 0o777, 0o600)
    }))

  const broken: ReadonlyArray<readonly [name: string, spoil: (key: string) => Promise<unknown>, words: string]> = [
    ["is empty", (key) => truncate(key, 0), "is empty"],
    ["is cut off", (key) => truncate(key, 60), "not a PEM private key"],
    ["is garbage", (key) => writeFile(key, Buffer.from([0, 255, 1, 254])), "not a PEM private key"],
    ["is a key of another kind", (key) => writeFile(key, pem("ed448")), "of type ed448"],
    ["is huge", (key) => truncate(key, 3_000_000_000), "larger than"],
    ["is a directory", async (key) => {
      await rm(key)
      await mkdir(key)
    }, "not a regular file"],
    ["is a pipe that nobody writes to", async (key) => {
      await rm(key)
      execFileSync("mkfifo", [key])
    }, "not a regular file"],
    ["leads to a device without an end", async (key) => {
      await rm(key)
      await symlink("/dev/zero", key)
    }, "not a regular file"],
    ["leads in a circle", async (key) => {
      await rm(key)
      await symlink(key, key)
    }, "ELOOP"]
  ]
  for (const [name, spoil, words] of broken) {
    it.live(`is in memory, with one warning, where the file ${name}`, () =>
      Effect.gen(function*() {
        const directory = yield* temporary
        const key = join(directory, "private.key")
        const { id } = yield* start(directory)
        yield* Effect.promise(() => spoil(key))
        const after = yield* start(directory)
        assert.match(after.id, /^12D3Koo/)
        assert.notStrictEqual(after.id, id)
        assert.strictEqual(after.warnings.length, 1, after.warnings.join("\n"))
        for (const word of [key, words, "restore or remove the file"]) assert.include(after.warnings[0], word)
        // The file that an administrator may want to restore is still there.
        yield* Effect.promise(() => rm(key, { recursive: true }))
        assert.deepStrictEqual((yield* start(directory)).warnings, [])
      }))
  }

  const asRoot = process.getuid?.() === 0
  const mounts = asRoot && (() => {
    try {
      execFileSync("unshare", ["--mount", "true"], { stdio: "ignore" })
      return true
    } catch {
      return false
    }
  })()

  it.live("is in memory if the directory cannot be made", () =>
    Effect.gen(function*() {
      const file = join(yield* temporary, "file")
      yield* Effect.promise(() => writeFile(file, ""))
      for (const directory of [file, join(file, "below"), "/proc/nowhere"]) {
        const { id, warnings } = yield* start(directory)
        assert.match(id, /^12D3Koo/)
        assert.strictEqual(warnings.length, 1)
        assert.include(warnings[0], "can be written to")
      }
    }))

  const note = mounts ? "" : " (skipped: needs root and mounts)"
  if (!mounts && process.env["CI"] === "true") throw new Error("the tests of full and read-only disks need root")
  for (
    const [name, options, words] of [
      ["full", "size=4k", "ENOSPC"],
      ["read-only", "ro", "EROFS"]
    ] as const
  ) {
    it.live.skipIf(!mounts)(
      `is in memory on a ${name} disk, which is left as it was${note}`,
      () =>
        Effect.gen(function*() {
          const directory = yield* temporary
          yield* Effect.acquireRelease(
            Effect.sync(() => execFileSync("mount", ["-t", "tmpfs", "-o", options, "tmpfs", directory])),
            () => Effect.sync(() => execFileSync("umount", [directory]))
          )
          if (name === "full") yield* Effect.promise(() => writeFile(join(directory, "filler"), Buffer.alloc(4096)))
          const before = yield* Effect.promise(() => readdir(directory))
          const { warnings } = yield* start(directory)
          assert.strictEqual(warnings.length, 1)
          assert.include(warnings[0], words)
          assert.deepStrictEqual(yield* Effect.promise(() => readdir(directory)), before)
        })
    )
  }

  it.live("is adopted if it has no recorded owner, who is recorded then", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const { id } = yield* start(directory, { node: "worker-1" })
      const owner = join(directory, "private.key.owner")
      for (const left of [undefined, "", "{\"node\":7}", "\u0000", "x".repeat(100_000)]) {
        yield* Effect.promise(() => left === undefined ? rm(owner) : writeFile(owner, left))
        assert.deepStrictEqual(yield* start(directory, { node: "worker-2", machine: "m" }), { id, warnings: [] })
        assert.deepStrictEqual(
          JSON.parse(yield* Effect.promise(() => readFile(owner, "utf8"))),
          { node: "worker-2", machine: "m" }
        )
      }
    }))

  it.live("is made anew, once, on a clone", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const original = yield* start(directory, { node: "worker-1" })
      const clone = yield* start(directory, { node: "worker-2" })
      assert.notStrictEqual(clone.id, original.id)
      assert.strictEqual(clone.warnings.length, 1)
      assert.include(clone.warnings[0], "another node's")
      assert.deepStrictEqual(yield* start(directory, { node: "worker-2" }), { id: clone.id, warnings: [] })
    }))

  it.live("is left to the process that uses it, until that one has ended or was killed", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const lock = join(directory, "private.key.lock")
      const { meanwhile, using } = yield* Effect.scoped(Effect.gen(function*() {
        const context = yield* Layer.build(Layer.fresh(Identity.layer({ dataDir: directory, owner: {} })))
        assert.isTrue((yield* Effect.promise(() => stat(lock))).isSocket())
        return { using: Context.get(context, Identity).id, meanwhile: yield* start(directory) }
      }))
      assert.notStrictEqual(meanwhile.id, using)
      assert.deepStrictEqual(meanwhile.warnings, [])
      assert.deepStrictEqual(yield* start(directory), { id: using, warnings: [] })

      const killed = "require('net').createServer().listen(process.argv[1], () => process.kill(process.pid, 'SIGKILL'))"
      spawnSync(process.execPath, ["-e", killed, lock])
      assert.isTrue((yield* Effect.promise(() => stat(lock))).isSocket())
      assert.deepStrictEqual(yield* start(directory), { id: using, warnings: [] })
      assert.notInclude(yield* Effect.promise(() => readdir(directory)), "private.key.lock")
    }))

  it.live("is used if no lock can be made", () =>
    Effect.gen(function*() {
      // Longer than the path of a socket may be.
      const directory = join(yield* temporary, "d".repeat(120))
      const { id } = yield* start(directory)
      const both = yield* Effect.scoped(Effect.andThen(
        Layer.build(Layer.fresh(Identity.layer({ dataDir: directory, owner: {} }))),
        start(directory)
      ))
      assert.deepStrictEqual(both, { id, warnings: [] })
    }))

  it("belongs to another node by its name, or else by its machine", () => {
    const cases: ReadonlyArray<readonly [kept: Owner, own: Owner, foreign: boolean]> = [
      [{}, { node: "a", machine: "m" }, false],
      [{ node: "a", machine: "m" }, {}, false],
      [{ node: "a" }, { machine: "m" }, false],
      [{ node: "a" }, { node: "b" }, true],
      [{ machine: "m" }, { machine: "n" }, true],
      [{ machine: "m" }, { node: "a", machine: "m" }, false],
      // Reinstalled under the same name, with its data.
      [{ node: "a", machine: "m" }, { node: "a", machine: "n" }, false],
      [{ node: "a", machine: "m" }, { node: "b", machine: "m" }, true]
    ]
    for (const [kept, own, foreign] of cases) {
      assert.strictEqual(isForeign(kept, own), foreign, JSON.stringify([kept, own]))
    }
  })

  it.live("identifies a machine by a hash of its id, which an image does not have", () =>
    Effect.promise(async () => {
      const directory = await mkdtemp(join(tmpdir(), "machine-"))
      const machineIdFile = join(directory, "machine-id")
      const id = "0123456789abcdef0123456789abcdef"
      const own = (text?: string) =>
        (text === undefined ? Promise.resolve() : writeFile(machineIdFile, text)).then(() =>
          ownerOf({ nodeName: "", machineIdFile })
        )
      assert.deepStrictEqual(await own(), {})
      for (const none of ["", "uninitialized\n", "short"]) assert.deepStrictEqual(await own(none), {})
      const { machine = "" } = await own(`${id}\n`)
      assert.match(machine, /^[0-9a-f]{32}$/)
      assert.notStrictEqual(machine, id)
      assert.deepStrictEqual(await ownerOf({ nodeName: "a", machineIdFile }), { node: "a", machine })
      await rm(directory, { recursive: true })
    }))

  it.live.skipIf(!asRoot)("is in memory if the file may not be read", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      yield* start(directory)
      const key = join(directory, "private.key")
      yield* Effect.promise(async () => {
        await chown(key, 0, 0)
        await chmod(directory, 0o755)
      })
      // Root may read everything, so another user reads it, who may not be able to read this checkout.
      const program = `import(process.argv[1]).then(({ readSmall }) => {
        process.setgroups([])
        process.setgid(65534)
        process.setuid(65534)
        return readSmall(process.argv[2], 9)
      }).catch((cause) => console.log(cause.code))`
      const denied = execFileSync(process.execPath, [
        "-e",
        program,
        new URL("../src/internal/identity/DurableFile.ts", import.meta.url).href,
        key
      ], { encoding: "utf8" })
      assert.strictEqual(denied.trim(), "EACCES")
    }))
})
