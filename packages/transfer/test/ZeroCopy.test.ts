import { assert, describe, it } from "@effect/vitest"
import * as Connections from "@spegel-ts/transfer/internal/conformance/Connections"
import * as Content from "@spegel-ts/transfer/internal/conformance/Content"
import * as Holdings from "@spegel-ts/transfer/internal/conformance/Holdings"
import {
  bytesOf,
  ending,
  fileSource,
  moving,
  receiving,
  sending,
  stuck,
  until
} from "@spegel-ts/transfer/internal/conformance/Trials"
import { Progress } from "@spegel-ts/transfer/Progress"
import { Transfer } from "@spegel-ts/transfer/Transfer"
import { Effect, Fiber, Result } from "effect"
import { execFileSync, spawnSync } from "node:child_process"
import { mkdtemp, open, rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const part = { offset: 77, length: 10 * 1024 * 1024 }

/**
 * A user of its own, whose pipes nobody else makes or closes, without the capabilities that lift the limit of pipes. It reads
 * this checkout, wherever that is.
 */
const reads = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
const limited = ["--reuid=64123", "--regid=64123", "--clear-groups", ...reads, process.execPath]

/** The reason to skip tests, if there is one. CI must lack nothing. */
const lacking = ((): string | undefined => {
  const reason = spawnSync("setpriv", [...limited, "--version"]).status === 0 ? undefined : "needs root and setpriv"
  if (reason !== undefined && process.env["CI"] === "true") throw new Error(`CI lacks a prerequisite: ${reason}`)
  return reason
})()

const program = fileURLToPath(new URL("PipeLimit.ts", import.meta.url))
const suddenEnd = fileURLToPath(new URL("SuddenEnd.ts", import.meta.url))
const pipeLimit = (command: string, options: ReadonlyArray<string>): unknown =>
  JSON.parse(execFileSync(command, [...options, "--conditions=@spegel-ts/source", program], { encoding: "utf8" }))

/** The mover's thread cannot do with this what it does first: it dies. */
class Broken extends Progress {
  override readonly memory = new SharedArrayBuffer(1)
}

describe("the zero-copy layer", () => {
  it.live("fails bodies whose mover dies at the byte reached, and goes on portably", () =>
    Effect.gen(function*() {
      const before = yield* Holdings.look
      yield* Effect.gen(function*() {
        const { plane } = yield* Transfer
        assert.deepStrictEqual(yield* plane, { name: "zero-copy", reason: undefined })
        const handle = yield* Content.file
        const client = yield* Connections.client
        const receiver = receiving(client, part)
        receiver.pause()
        const progress = new Progress()
        const source = yield* sending(yield* Connections.peer, part)
        const running = yield* Effect.forkChild(moving(client, source, part.length, progress))
        yield* stuck(progress)

        const other = yield* Connections.client
        receiving(other, part)
        const killing = yield* Effect.flip(moving(other, fileSource(handle, part), part.length, new Broken()))
        assert.strictEqual(killing._tag, "TransferFailed")
        const result = yield* ending(running)
        assert.strictEqual(Result.isFailure(result) && result.failure._tag, "TransferFailed")
        receiver.resume()
        yield* Connections.write(client.near, bytesOf(part).subarray(progress.moved))
        yield* receiver.all
        assert.isTrue(receiver.whole)

        const { name, reason } = yield* plane
        assert.strictEqual(name, "portable")
        assert.include(reason, "the mover's thread died")
        const next = yield* Connections.client
        const whole = receiving(next, part)
        yield* moving(next, fileSource(handle, part), part.length)
        yield* whole.all
        assert.isTrue(whole.whole)
      }).pipe(Effect.scoped, Effect.provide(Transfer.layerZeroCopy))
      assert.deepStrictEqual(yield* Holdings.leftOver(before), [])
    }))

  it.live("keeps Node from taking a connection for idle while the mover writes to it", () =>
    Effect.gen(function*() {
      const handle = yield* Content.file
      const client = yield* Connections.client
      const receiver = receiving(client, part)
      client.near.setTimeout(60_000)
      receiver.pause()
      const progress = new Progress()
      const running = yield* Effect.forkChild(moving(client, fileSource(handle, part), part.length, progress))
      yield* until(() => progress.moved > 100_000)
      assert.strictEqual(client.near.timeout, 0)
      receiver.resume()
      yield* Fiber.join(running)
      assert.strictEqual(client.near.timeout, 60_000)
    }).pipe(Effect.scoped, Effect.provide(Transfer.layerZeroCopy)))

  it.live("keeps the pipes of bodies for others", () =>
    Effect.gen(function*() {
      const { usage } = yield* Transfer
      const client = yield* Connections.client
      receiving(client, part)
      yield* moving(client, yield* sending(yield* Connections.peer, part), part.length)
      assert.deepStrictEqual(yield* usage, { bodies: 0, idlePipes: 1 })
    }).pipe(Effect.scoped, Effect.provide(Transfer.layerZeroCopy)))

  it.live.skipIf(lacking !== undefined)(
    `relays portably where pipes have no room (${lacking ?? "as root"})`,
    () =>
      Effect.sync(() => {
        assert.deepStrictEqual(pipeLimit(process.execPath, []), { capacity: 256 * 1024, idlePipes: 2, whole: true })
        assert.deepStrictEqual(pipeLimit("setpriv", limited), { capacity: 8192, idlePipes: 1, whole: true })
      })
  )

  it.live("waits for a disk without holding up the thread, and counts that as the source's time", () =>
    Effect.gen(function*() {
      // Not in /tmp, which may be memory: what is here comes from a disk.
      const folder = yield* Effect.acquireRelease(
        Effect.promise(() => mkdtemp(join(import.meta.dirname, "cold-"))),
        (path) => Effect.promise(() => rm(path, { recursive: true }))
      )
      const path = join(folder, "content")
      yield* Effect.promise(() => writeFile(path, Content.bytes))
      const handle = yield* Effect.acquireRelease(
        Effect.promise(() => open(path)),
        (handle) => Effect.promise(() => handle.close())
      )
      yield* Effect.promise(() => handle.datasync())
      execFileSync("dd", [`if=${path}`, "iflag=nocache", "count=0", "status=none"])
      // Node reads the bytes that go out with the head: these are not to be waited for here.
      yield* Effect.promise(() => handle.read(Buffer.alloc(65_536), 0, 65_536, part.offset))
      const client = yield* Connections.client
      const receiver = receiving(client, part)
      const progress = new Progress()
      yield* moving(client, fileSource(handle, part), part.length, progress)
      yield* receiver.all
      assert.isTrue(receiver.whole)
      assert.isAbove(progress.waitedMillis, 1)
    }).pipe(Effect.scoped, Effect.provide(Transfer.layerZeroCopy)))

  it("does not keep a process that ends suddenly: its thread waits in a foreign call", () => {
    for (const [how, status] of [["exit", 3], ["exception", 1]] as const) {
      const ended = spawnSync(process.execPath, ["--conditions=@spegel-ts/source", suddenEnd, how], { timeout: 30_000 })
      assert.deepStrictEqual([ended.signal, ended.status], [null, status], how)
    }
  })
})
