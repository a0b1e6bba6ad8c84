/** What every layer of `Transfer` must do, as tests to run over a layer. Needs vitest; import it from tests only. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Random, Result, Scope } from "effect"
import { closeSync, openSync } from "node:fs"
import { spawnSync } from "node:child_process"
import { SourceEnded } from "./Body.ts"
import { Progress } from "./Progress.ts"
import * as Connections from "./testkit/Connections.ts"
import * as Content from "./testkit/Content.ts"
import * as Holdings from "./testkit/Holdings.ts"
import {
  bytesOf,
  ending,
  fileSource,
  head,
  moving,
  movingOn,
  type Part,
  randomPart,
  receiving,
  sending,
  stuck,
  until
} from "./testkit/Trials.ts"
import { Transfer } from "./Transfer.ts"

const mib = 1024 * 1024
/** More than sockets and pipes hold. */
const large: Part = { offset: 4321, length: 11 * mib }

/** Runs the suite. */
export const transferConformance = (name: string, layer: Layer.Layer<Transfer, unknown>) => {
  /** A test that leaves nothing of the system behind. */
  const test = (title: string, body: Effect.Effect<void, unknown, Transfer | Scope.Scope>) =>
    it.live(title, () =>
      Effect.gen(function*() {
        const before = yield* Holdings.look
        yield* body.pipe(Effect.scoped, Effect.provide(layer), Random.withSeed(title))
        assert.deepStrictEqual(yield* Holdings.leftOver(before), [])
      }))

  describe(`Transfer of ${name}`, { timeout: 20_000 }, () => {
    test(
      "moves parts of a file one after another to a client",
      Effect.gen(function*() {
        const handle = yield* Content.file
        const client = yield* Connections.client
        const parts = [{ offset: 0, length: Content.bytes.length }, { offset: 5, length: 0 }]
        for (let index = 0; index < 12; index++) parts.push(yield* randomPart(4 * mib))
        const expected = Buffer.concat(parts.flatMap((part) => [head, bytesOf(part)]))
        const receiver = new Connections.Receiver(client.far, expected)
        for (const part of parts) {
          const progress = new Progress()
          assert.strictEqual((yield* moving(client, fileSource(handle, part), part.length, progress)).source, "quiet")
          assert.strictEqual(progress.moved, part.length)
        }
        yield* receiver.all
        assert.isTrue(receiver.whole)
      })
    )

    test(
      "moves bodies of one peer one after another to a client",
      Effect.gen(function*() {
        const client = yield* Connections.client
        const peer = yield* Connections.peer
        const parts = [large]
        for (let index = 0; index < 12; index++) parts.push(yield* randomPart(4 * mib))
        const expected = Buffer.concat(parts.flatMap((part) => [head, bytesOf(part)]))
        const receiver = new Connections.Receiver(client.far, expected)
        for (const part of parts) {
          const progress = new Progress()
          const source = yield* sending(peer, part)
          assert.strictEqual((yield* moving(client, source, part.length, progress)).source, "quiet")
          assert.strictEqual(progress.moved, part.length)
          assert.strictEqual(progress.taken, part.length)
        }
        yield* receiver.all
        assert.isTrue(receiver.whole)
      })
    )

    test(
      "sends the head with the first byte, and not before",
      Effect.gen(function*() {
        const client = yield* Connections.client
        const { append, handle } = yield* Content.growing
        const receiver = receiving(client, { offset: 0, length: mib })
        const progress = new Progress()
        const fiber = yield* Effect.forkChild(
          moving(client, { _tag: "GrowingFile", handle, offset: 0 }, mib, progress)
        )
        yield* until(() => progress.silentMillis > 30)
        assert.strictEqual(client.near.bytesWritten, 0)
        yield* append(Content.bytes.subarray(0, 1))
        yield* receiver.received(head.length + 1)
        yield* append(Content.bytes.subarray(1, mib))
        yield* Fiber.join(fiber)
        yield* receiver.all
        assert.isTrue(receiver.whole)
      })
    )

    test(
      "waits for a slow client with little in memory, and counts no time against the source",
      Effect.gen(function*() {
        const handle = yield* Content.file
        for (const kind of ["file", "peer"]) {
          const client = yield* Connections.client
          const receiver = receiving(client, large)
          receiver.pause()
          const source = kind === "file" ? fileSource(handle, large) : yield* sending(yield* Connections.peer, large)
          const progress = new Progress()
          const fiber = yield* Effect.forkChild(moving(client, source, large.length, progress))
          yield* stuck(progress)
          assert.isBelow(progress.moved, large.length)
          assert.strictEqual(progress.silentMillis, 0)
          receiver.resume()
          yield* Fiber.join(fiber)
          yield* receiver.all
          assert.isTrue(receiver.whole, kind)
        }
      })
    )

    test(
      "tells how long a peer is silent while the client waits",
      Effect.gen(function*() {
        const client = yield* Connections.client
        const peer = yield* Connections.peer
        const receiver = receiving(client, { offset: 0, length: mib })
        const source = yield* sending(peer, { offset: 0, length: mib / 2 })
        const progress = new Progress()
        const fiber = yield* Effect.forkChild(moving(client, source, mib, progress))
        yield* receiver.received(head.length + mib / 2)
        yield* until(() => progress.silentMillis > 50)
        assert.isAtLeast(progress.waitedMillis, 50)
        yield* Connections.write(peer.remote, Content.bytes.subarray(mib / 2, mib))
        yield* Fiber.join(fiber)
        assert.strictEqual(progress.silentMillis, 0)
        assert.isAtLeast(progress.waitedMillis, 50)
      })
    )

    test(
      "moves a file that grows, and stops exactly where it is told to",
      Effect.gen(function*() {
        const client = yield* Connections.client
        const { append, handle } = yield* Content.growing
        const length = 3 * mib
        const receiver = receiving(client, { offset: 0, length })
        const progress = new Progress()
        const fiber = yield* Effect.forkChild(
          moving(client, { _tag: "GrowingFile", handle, offset: 0 }, length, progress)
        )
        for (let at = 0; at < 2 * mib; at += mib / 8) yield* append(Content.bytes.subarray(at, at + mib / 8))
        yield* receiver.received(head.length + 2 * mib)
        yield* Fiber.interrupt(fiber)
        assert.strictEqual(progress.moved, 2 * mib)
        yield* append(Content.bytes.subarray(2 * mib, length))
        yield* movingOn(client, { _tag: "GrowingFile", handle, offset: 2 * mib }, mib, progress)
        yield* receiver.all
        assert.isTrue(receiver.whole)
        assert.strictEqual(progress.moved, length)
      })
    )

    test(
      "stops a body that is aborted; the client is sent the rest by others",
      Effect.gen(function*() {
        const handle = yield* Content.file
        for (let trial = 0; trial < 20; trial++) {
          const client = yield* Connections.client
          const receiver = receiving(client, large)
          const source = trial % 2 === 0
            ? fileSource(handle, large)
            : yield* sending(yield* Connections.peer, large)
          const progress = new Progress()
          const fiber = yield* Effect.forkChild(moving(client, source, large.length, progress))
          yield* receiver.received(head.length + (yield* Random.nextIntBetween(1, large.length)))
          if (trial % 3 === 0) {
            receiver.pause()
            if (progress.moved < 2 * mib) yield* stuck(progress)
          }
          yield* Fiber.interrupt(fiber)
          const { moved } = progress
          receiver.resume()
          yield* Connections.write(client.near, bytesOf(large).subarray(moved))
          yield* receiver.all
          assert.isTrue(receiver.whole, `trial ${trial}`)
        }
      })
    )

    test(
      "tells where a peer has left, so that another goes on within the same answer",
      Effect.gen(function*() {
        for (let trial = 0; trial < 20; trial++) {
          const client = yield* Connections.client
          const receiver = receiving(client, large)
          const reset = trial % 2 === 0
          const given = yield* Random.nextIntBetween(1, large.length - 1)
          const first = yield* Connections.peer
          const source = yield* sending(first, { offset: large.offset, length: given })
          const progress = new Progress()
          const fiber = yield* Effect.forkChild(moving(client, source, large.length, progress))
          if (reset) {
            yield* receiver.received(head.length + Math.floor(given * (yield* Random.next)))
            first.remote.resetAndDestroy()
          } else first.remote.end()
          const result = yield* ending(fiber)
          if (Result.isSuccess(result)) throw new Error("the body was whole")
          assert.instanceOf(result.failure, SourceEnded)
          const { moved } = progress
          if (result.failure instanceof SourceEnded) assert.strictEqual(result.failure.missing, large.length - moved)
          if (!reset) assert.strictEqual(moved, given)
          const rest = { offset: large.offset + moved, length: large.length - moved }
          yield* movingOn(client, yield* sending(yield* Connections.peer, rest), rest.length, progress)
          yield* receiver.all
          assert.isTrue(receiver.whole, `trial ${trial}`)
          assert.strictEqual(progress.moved, large.length)
        }
      })
    )

    test(
      "ends with FIN and never RST towards a client where the source has left",
      Effect.gen(function*() {
        const handle = yield* Content.file
        const client = yield* Connections.client
        const receiver = receiving(client, { offset: 0, length: Content.bytes.length })
        const error = yield* Effect.flip(moving(client, fileSource(handle, large), Content.bytes.length))
        assert.instanceOf(error, SourceEnded)
        client.near.destroySoon()
        yield* receiver.end
        assert.strictEqual(receiver.ended, "FIN")
        assert.strictEqual(receiver.bytes, head.length + Content.bytes.length - large.offset)
      })
    )

    test(
      "takes nothing beyond the length of a peer's body",
      Effect.gen(function*() {
        for (const length of [1000, 300_000, 2 * mib]) {
          const client = yield* Connections.client
          const receiver = receiving(client, { offset: 0, length })
          const peer = yield* Connections.peer
          const source = yield* sending(peer, { offset: 0, length }, Buffer.from("more"))
          receiver.pause()
          const fiber = yield* Effect.forkChild(moving(client, source, length))
          yield* until(() => peer.remote.writableLength === 0)
          receiver.resume()
          const { source: after } = yield* Fiber.join(fiber)
          yield* receiver.all
          assert.isTrue(receiver.whole)
          // Those that come later are seen by whoever keeps the connection.
          if (after === "quiet") assert.strictEqual((yield* peer.early(1)).toString(), "more")
          else assert.strictEqual(after, "sent more")
        }
      })
    )

    test(
      "ends when the client leaves, at any time and either way",
      Effect.gen(function*() {
        const handle = yield* Content.file
        let gone = 0
        for (let trial = 0; trial < 24; trial++) {
          const client = yield* Connections.client
          const receiver = receiving(client, large)
          const waits = trial % 3 === 0
          const part = waits ? { offset: large.offset, length: mib } : large
          const source = trial % 2 === 0 && !waits
            ? fileSource(handle, large)
            : yield* sending(yield* Connections.peer, part)
          const progress = new Progress()
          const fiber = yield* Effect.forkChild(moving(client, source, large.length, progress))
          yield* receiver.received(head.length + Math.floor(part.length * (yield* Random.next)))
          if (trial % 4 < 2) client.far.destroy()
          else if (trial % 4 === 2) client.far.resetAndDestroy()
          else client.near.destroy()
          const result = yield* ending(fiber)
          if (Result.isFailure(result)) {
            assert.strictEqual(result.failure._tag, "ClientGone", `trial ${trial}`)
            gone++
          } // What is left may be in the client's memory already.
          else assert.strictEqual(progress.moved, large.length)
        }
        assert.isAbove(gone, 8)
      })
    )

    test(
      "ends when the peer's connection is closed on this side, whoever waits for whom",
      Effect.gen(function*() {
        for (const slow of [false, true]) {
          const client = yield* Connections.client
          const receiver = receiving(client, large)
          const peer = yield* Connections.peer
          const source = yield* sending(peer, slow ? large : { offset: large.offset, length: 2 * mib })
          const progress = new Progress()
          if (slow) receiver.pause()
          const fiber = yield* Effect.forkChild(moving(client, source, large.length, progress))
          yield* slow ? stuck(progress) : receiver.received(head.length + 2 * mib)
          peer.peer.destroy()
          if (slow) receiver.resume()
          const result = yield* ending(fiber)
          assert.strictEqual(Result.isFailure(result) && result.failure._tag, "SourceEnded")
          yield* Connections.write(client.near, bytesOf(large).subarray(progress.moved))
          yield* receiver.all
          assert.isTrue(receiver.whole, slow ? "a slow client" : "a silent peer")
        }
      })
    )

    test(
      "moves many bodies at once",
      Effect.gen(function*() {
        const handle = yield* Content.file
        const { usage } = yield* Transfer
        const one = Effect.fnUntraced(function*(index: number) {
          const client = yield* Connections.client
          const part = yield* randomPart(4 * mib)
          const receiver = receiving(client, part)
          const source = index % 2 === 0
            ? fileSource(handle, part)
            : yield* sending(yield* Connections.peer, part)
          yield* moving(client, source, part.length)
          yield* receiver.all
          assert.isTrue(receiver.whole)
        }, Effect.scoped)
        yield* Effect.forEach(Array.from({ length: 64 }, (_, index) => index), one, { concurrency: "unbounded" })
        assert.strictEqual((yield* usage).bodies, 0)
      })
    )

    test(
      "moves bodies where no descriptor is left",
      Effect.gen(function*() {
        const handle = yield* Content.file
        const first = yield* Connections.client
        const second = yield* Connections.client
        const receivers = [receiving(first, large), receiving(second, large)]
        const source = yield* sending(yield* Connections.peer, large)
        yield* withoutDescriptors
        yield* Effect.all([
          moving(first, fileSource(handle, large), large.length),
          moving(second, source, large.length)
        ], { concurrency: "unbounded" })
        for (const receiver of receivers) {
          yield* receiver.all
          assert.isTrue(receiver.whole)
        }
      })
    )

    it.live("aborts bodies when it is closed, and leaves nothing", () =>
      Effect.gen(function*() {
        const before = yield* Holdings.look
        yield* Effect.gen(function*() {
          const scope = yield* Scope.make()
          const services = yield* Layer.buildWithScope(Layer.fresh(layer), scope)
          const handle = yield* Content.file
          const bodies = yield* Effect.forEach(Array.from({ length: 16 }, (_, index) => index), (index) =>
            Effect.gen(function*() {
              const client = yield* Connections.client
              receiving(client, large).pause()
              const source = index % 2 === 0
                ? fileSource(handle, large)
                : yield* sending(yield* Connections.peer, large)
              const progress = new Progress()
              const fiber = yield* moving(client, source, large.length, progress).pipe(
                Effect.provide(services),
                Effect.forkChild
              )
              return { progress, fiber }
            }))
          for (const { progress } of bodies) yield* until(() => progress.moved > 100_000)
          yield* Scope.close(scope, Exit.void)
          for (const { fiber } of bodies) {
            const result = yield* ending(fiber)
            assert.strictEqual(Result.isFailure(result) && result.failure._tag, "TransferAborted")
          }
        }).pipe(Effect.scoped)
        assert.deepStrictEqual(yield* Holdings.leftOver(before), [])
      }))
  })
}

/** Runs `prlimit` (Debian package util-linux) on this process. */
const prlimit = (...options: ReadonlyArray<string>): string => {
  const { status, stdout } = spawnSync("prlimit", [`--pid=${process.pid}`, ...options], { encoding: "utf8" })
  assert.strictEqual(status, 0, "prlimit failed")
  return stdout.trim()
}

/** Uses up the descriptors of this process while the scope is open. */
const withoutDescriptors = Effect.acquireRelease(
  Effect.sync(() => {
    const before = prlimit("--nofile", "--output=SOFT", "--noheadings")
    prlimit("--nofile=256:")
    const taken: Array<number> = []
    try {
      for (;;) taken.push(openSync("/dev/null", "r"))
    } catch {
      // That was the last one.
    }
    return { before, taken }
  }),
  ({ before, taken }) =>
    Effect.sync(() => {
      for (const fd of taken) closeSync(fd)
      prlimit(`--nofile=${before}:`)
    })
)
