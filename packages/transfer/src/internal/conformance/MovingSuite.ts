/** Tests of bodies that come to their end, with slow clients, silent peers and a lack of descriptors. */
import { assert } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { spawnSync } from "node:child_process"
import { closeSync, openSync } from "node:fs"
import type { Source } from "../../Body.ts"
import { Progress } from "../../Progress.ts"
import { Transfer } from "../../Transfer.ts"
import * as Connections from "./Connections.ts"
import * as Content from "./Content.ts"
import * as HttpAnswers from "./HttpAnswers.ts"
import {
  bytesOf,
  fileSource,
  head,
  large,
  mib,
  moving,
  movingOn,
  type Part,
  randomPart,
  receiving,
  sending,
  stuck,
  type Test,
  until
} from "./Trials.ts"

/** Moves `first` and a dozen random parts, one after another to one client. `sourceOf` gives each part's source. */
const movingInTurn = Effect.fnUntraced(function*<R>(
  first: ReadonlyArray<Part>,
  sourceOf: (part: Part) => Effect.Effect<Source, never, R>
) {
  const client = yield* Connections.client
  const parts = [...first]
  for (let index = 0; index < 12; index++) parts.push(yield* randomPart(4 * mib))
  const expected = Buffer.concat(parts.flatMap((part) => [head, bytesOf(part)]))
  const receiver = new Connections.Receiver(client.far, expected)
  for (const part of parts) {
    const progress = new Progress()
    const moved = yield* moving(client, yield* sourceOf(part), part.length, progress)
    assert.strictEqual(moved.source, "quiet")
    assert.strictEqual(progress.moved, part.length)
    assert.strictEqual(progress.taken, part.length)
  }
  yield* receiver.all
  assert.isTrue(receiver.whole)
})

export const movingSuite = (test: Test): void => {
  test(
    "moves parts of a file one after another to a client",
    Effect.gen(function*() {
      const handle = yield* Content.file
      const whole = { offset: 0, length: Content.bytes.length }
      yield* movingInTurn([whole, { offset: 5, length: 0 }], (part) => Effect.succeed(fileSource(handle, part)))
    })
  )

  test(
    "moves bodies of one peer one after another to a client",
    Effect.gen(function*() {
      const peer = yield* Connections.peer
      yield* movingInTurn([large], (part) => sending(peer, part))
    })
  )

  test(
    "moves the bodies of node:http's answers, one after another on a connection",
    Effect.gen(function*() {
      const length = 2 * mib
      const port = yield* HttpAnswers.serve(yield* Content.file, length)
      const { bodies, connections } = yield* HttpAnswers.ask(port, 4)
      for (const body of bodies) assert.isTrue(body.equals(bytesOf({ offset: 0, length })))
      assert.strictEqual(connections, 1)
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
      // The last descriptor is taken.
    }
    return { before, taken }
  }),
  ({ before, taken }) =>
    Effect.sync(() => {
      for (const fd of taken) closeSync(fd)
      prlimit(`--nofile=${before}:`)
    })
)
