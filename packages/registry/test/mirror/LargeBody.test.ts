import { assert, describe, it } from "@effect/vitest"
import * as Digest from "@spegel-ts/oci/Digest"
import * as LargeBody from "@spegel-ts/registry/internal/mirror/LargeBody"
import { eventually } from "@spegel-ts/testing/Eventually"
import * as Connections from "@spegel-ts/transfer/internal/conformance/Connections"
import { PeerDisconnected } from "@spegel-ts/transfer/PeerError"
import type { ByteSink, PeerResponse } from "@spegel-ts/transfer/PeerTransport"
import { Progress } from "@spegel-ts/transfer/Progress"
import { Effect, Fiber } from "effect"
import { createHash, randomBytes } from "node:crypto"

const body = randomBytes(3_000_000)
const expected = {
  digest: Digest.Digest.make(`sha256:${createHash("sha256").update(body).digest("hex")}`),
  size: body.length
}

/** An answer with these bytes, the first of them elsewhere and the others where the sink wants them; then it breaks, or not. */
const answerOf = (bytes: Buffer, breaks = false): Pick<PeerResponse, "move" | "relay"> => {
  const relay = (sink: ByteSink) =>
    Effect.gen(function*() {
      for (let at = 0; at < bytes.length;) {
        const space = at === 0 ? Buffer.alloc(50_000) : sink.space?.() ?? assert.fail("no space")
        const size = bytes.copy(space, 0, at, at + 700_000)
        at += size
        const more = Effect.callback<void>((resume) => {
          if (sink.write(space.subarray(0, size), () => resume(Effect.void))) resume(Effect.void)
        })
        // A peer that breaks does not wait for its last bytes to be taken.
        if (breaks && at === bytes.length) yield* Effect.forkDetach(more, { startImmediately: true })
        else yield* more
      }
      if (breaks) return yield* new PeerDisconnected({ peer: "a", reason: "broke off" })
    })
  return { relay, move: () => Effect.die("not asked for") }
}

const setup = Effect.gen(function*() {
  const client = yield* Connections.client
  const chunks: Array<Buffer> = []
  client.far.on("data", (chunk) => chunks.push(chunk)).resume()
  return {
    far: client.far,
    received: () => Buffer.concat(chunks),
    hashed: LargeBody.hashed(expected, { client: { socket: client.near }, progress: new Progress() })
  }
})

describe("LargeBody", () => {
  it.live("passes a right body on to its end, from peer after peer, to a slow client too", () =>
    Effect.gen(function*() {
      const { far, hashed, received } = yield* setup
      far.pause()
      const taking = yield* Effect.forkChild(Effect.gen(function*() {
        // Bytes on their way when a peer breaks go out before those of another peer.
        const error = yield* Effect.flip(hashed.take(answerOf(body.subarray(0, 2_000_000), true), {}))
        assert.strictEqual(error._tag, "PeerDisconnected")
        assert.strictEqual(hashed.offset(), 2_000_000)
        yield* hashed.take(answerOf(body.subarray(2_000_000)), {})
      }))
      yield* eventually(() => far.readableLength > 0)
      far.resume()
      yield* Fiber.join(taking)
      yield* eventually(() => received().length === body.length)
      assert.isTrue(received().equals(body))
    }).pipe(Effect.scoped))

  it.live("never passes the last chunk of a wrong one on, whichever byte is wrong", () =>
    Effect.gen(function*() {
      for (const wrong of [0, 1_700_000, body.length - 1]) {
        const { hashed, received } = yield* setup
        const poisoned = Buffer.from(body)
        poisoned[wrong] = ~(poisoned[wrong] ?? 0)
        const outcome = yield* Effect.raceFirst(
          Effect.as(hashed.take(answerOf(poisoned), {}), "taken"),
          Effect.as(hashed.wrong, "wrong")
        )
        assert.strictEqual(outcome, "wrong")
        yield* eventually(() => received().length > 2_500_000)
        assert.isBelow(received().length, body.length)
        assert.isTrue(received().equals(poisoned.subarray(0, received().length)))
      }
    }).pipe(Effect.scoped))
})
