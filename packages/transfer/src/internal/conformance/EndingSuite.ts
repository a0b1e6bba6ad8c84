/** Tests of bodies that are aborted, or that one side leaves. */
import { assert } from "@effect/vitest"
import { Effect, Fiber, Random, Result } from "effect"
import { SourceEnded } from "../../Body.ts"
import { Progress } from "../../Progress.ts"
import * as Connections from "./Connections.ts"
import * as Content from "./Content.ts"
import {
  bytesOf,
  ending,
  fileSource,
  head,
  large,
  mib,
  moving,
  movingOn,
  receiving,
  sending,
  stuck,
  type Test,
  until
} from "./Trials.ts"

export const endingSuite = (test: Test): void => {
  test(
    "stops a body that is aborted; the client is sent the rest by others",
    Effect.gen(function*() {
      const handle = yield* Content.file
      for (let trial = 0; trial < 12; trial++) {
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
      for (let trial = 0; trial < 12; trial++) {
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
        // The owner of the connection sees those that come later.
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
      for (let trial = 0; trial < 20; trial++) {
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
        if (trial % 5 < 2) client.far.destroy()
        else if (trial % 5 === 2) client.far.resetAndDestroy()
        else if (trial % 5 === 3) client.far.end()
        else client.near.destroy()
        const result = yield* ending(fiber)
        if (Result.isFailure(result)) {
          assert.strictEqual(result.failure._tag, "ClientGone", `trial ${trial}`)
          gone++
        } // The rest may be in the client's memory already.
        else assert.strictEqual(progress.moved, large.length)
      }
      assert.isAbove(gone, 6)
    })
  )

  test(
    "ends when the peer's connection is closed on this side, with a slow client or without",
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
}
