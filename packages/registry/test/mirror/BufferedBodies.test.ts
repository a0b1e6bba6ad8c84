import { assert, describe, it } from "@effect/vitest"
import * as Digest from "@spegel-ts/oci/Digest"
import * as MediaType from "@spegel-ts/oci/MediaType"
import { type BufferedBodies, make } from "@spegel-ts/registry/internal/mirror/BufferedBodies"
import type { PeerAnswer } from "@spegel-ts/registry/internal/mirror/PeerAnswer"
import { NoMemoryForBody } from "@spegel-ts/registry/MirrorError"
import { Outcome } from "@spegel-ts/registry/Outcome"
import type { ByteSink } from "@spegel-ts/transfer/PeerTransport"
import { Effect, Stream } from "effect"

const kibibyte = 1024
/** Of it, 256 KiB are for manifests of up to 256 KiB, and 768 KiB for larger ones. */
const memory = 8 * 1024 * kibibyte

/** A peer's answer with a manifest of so many bytes, all of which come at once, or only so many. */
const answerOf = (size: number, come = size): PeerAnswer => {
  const text = JSON.stringify({ schemaVersion: 2, mediaType: MediaType.imageIndex, manifests: [] })
  const bytes = Buffer.from(text + " ".repeat(size - text.length))
  return {
    peer: { id: "a", addresses: ["127.0.0.1"], servicePort: 1 },
    digest: Digest.ofBytes(bytes),
    mediaType: MediaType.imageIndex,
    size,
    range: { start: 0, end: size },
    download: undefined,
    response: {
      status: 200,
      headers: new Map(),
      contentLength: size,
      contentRange: undefined,
      address: "127.0.0.1",
      body: Stream.empty,
      move: () => Effect.void,
      relay: (sink: ByteSink) =>
        Effect.callback<void>((resume) => {
          const end = () => come < size ? undefined : resume(Effect.void)
          if (sink.write(bytes.subarray(0, come), end)) end()
        })
    }
  }
}

const entry = () => ({
  peer: "a",
  address: "127.0.0.1",
  start: 0,
  hedge: false,
  firstByteMillis: undefined,
  bytes: 0,
  outcome: Outcome.Unanswered()
})

/** Reads a manifest, and keeps it while the test's scope is open. */
const read = (bodies: BufferedBodies, answer: PeerAnswer) => bodies.manifest(answer, { entry: entry(), judgement: {} })

describe("BufferedBodies", () => {
  it.live("needs no memory of its own for a manifest of usual size that is complete", () =>
    Effect.gen(function*() {
      const bodies = yield* make(memory)
      for (let turn = 0; turn < 10; turn++) {
        const { bytes } = yield* read(bodies, answerOf(256 * kibibyte))
        assert.strictEqual(bytes.length, 256 * kibibyte)
      }
    }))

  it.live("keeps memory for manifests of usual size, and lets a large one wait for no longer than half a second", () =>
    Effect.gen(function*() {
      const bodies = yield* make(memory)
      yield* read(bodies, answerOf(700 * kibibyte))
      assert.strictEqual((yield* read(bodies, answerOf(200 * kibibyte))).bytes.length, 200 * kibibyte)
      const begun = performance.now()
      const error = yield* Effect.flip(Effect.scoped(read(bodies, answerOf(700 * kibibyte))))
      assert.instanceOf(error, NoMemoryForBody)
      assert.include(error.message, "whose memory others need")
      assert.closeTo(performance.now() - begun, 500, 400)
      // What it had is given back.
      assert.strictEqual((yield* read(bodies, answerOf(200 * kibibyte))).bytes.length, 200 * kibibyte)
    }))

  it.live("gives a large one its memory back with its scope", () =>
    Effect.gen(function*() {
      const bodies = yield* make(memory)
      for (let turn = 0; turn < 5; turn++) {
        const { bytes } = yield* Effect.scoped(read(bodies, answerOf(700 * kibibyte)))
        assert.strictEqual(bytes.length, 700 * kibibyte)
      }
    }))
})
