import { assert, describe, it } from "@effect/vitest"
import * as Digest from "@spegel-ts/oci/Digest"
import type { ClientWriter } from "@spegel-ts/registry/BlobBody"
import { BodyBuffer } from "@spegel-ts/registry/BodyBuffer"
import { bodyBuffers } from "@spegel-ts/registry/BufferPool"
import { type DigestJob, DigestThread, inline } from "@spegel-ts/registry/DigestThread"
import * as DigestThreads from "@spegel-ts/registry/DigestThreads"
import * as VerifyingSink from "@spegel-ts/registry/VerifyingSink"
import { Effect, Exit } from "effect"
import { createHash, randomBytes } from "node:crypto"

const hexOf = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex")

const update = (job: DigestJob, chunk: Uint8Array) =>
  new Promise<void>((resolve) => {
    let done = false
    job.update(chunk, () => {
      done = true
      resolve()
    })
    job.watch(() => done)
  })
const digest = (job: DigestJob) => new Promise<string | undefined>((resolve) => job.digest(resolve))

/** Feeds a body in chunks of one reused buffer, as streams do. */
const hash = async (job: DigestJob, body: Uint8Array, chunkSize: number) => {
  const buffer = Buffer.alloc(chunkSize)
  for (let position = 0; position < body.length; position += chunkSize) {
    const chunk = body.subarray(position, position + chunkSize)
    buffer.fill(0).set(chunk)
    await update(job, buffer.subarray(0, chunk.length))
  }
  return digest(job)
}

const thread = Effect.acquireRelease(
  Effect.sync(() => {
    const deaths: Array<boolean> = []
    return { deaths, thread: new DigestThread((_reason, hashed) => deaths.push(hashed)) }
  }),
  ({ thread }) => Effect.promise(() => thread.terminate())
)

describe("DigestThreads", () => {
  it.live("hashes many streams at once, in small chunks and in large ones", () =>
    Effect.gen(function*() {
      const threads = yield* DigestThreads.make
      const bodies = Array.from({ length: 12 }, (_, index) => randomBytes(1 + index * 777_777))
      const hashed = yield* Effect.promise(() =>
        Promise.all(bodies.map((body, index) => hash(threads.begin("sha256"), body, 5_000 + index * 300_000)))
      )
      assert.deepStrictEqual(hashed, bodies.map(hexOf))
    }))

  it.live("keeps a stream's chunks in order, also where many wait", () =>
    Effect.gen(function*() {
      const threads = yield* DigestThreads.make
      const chunks = Array.from({ length: 40 }, () => randomBytes(300_000))
      const job = threads.begin("sha256")
      // Not one after another, but all at once.
      const taken = chunks.map((chunk) => update(job, chunk))
      yield* Effect.promise(() => Promise.all(taken))
      assert.strictEqual(yield* Effect.promise(() => digest(job)), hexOf(Buffer.concat(chunks)))
    }))

  const shared = (bytes: Uint8Array) => {
    const memory = Buffer.from(new SharedArrayBuffer(bytes.length))
    memory.set(bytes)
    return memory
  }

  it.live("reads shared memory where it is, and not any more once it has said so", () =>
    Effect.gen(function*() {
      const { thread: one } = yield* thread
      const job = one.begin("sha256")
      const memory = shared(Buffer.alloc(700_000))
      const whole = createHash("sha256")
      for (let round = 0; round < 30; round++) {
        whole.update(memory.fill(round))
        yield* Effect.promise(() => update(job, memory))
      }
      memory.fill(255)
      assert.strictEqual(yield* Effect.promise(() => digest(job)), whole.digest("hex"))
    }))

  it.live("says what it has read to who asks, within the same turn of the event loop", () =>
    Effect.gen(function*() {
      const { thread: one } = yield* thread
      const job = one.begin("sha256")
      const memory = shared(randomBytes(300_000))
      // The thread has to run first.
      yield* Effect.promise(() => update(job, memory))
      const read: Array<number> = []
      for (let chunk = 0; chunk < 3; chunk++) {
        job.update(memory.subarray(chunk * 100_000, (chunk + 1) * 100_000), () => read.push(chunk))
      }
      const until = performance.now() + 10_000
      while (read.length < 3 && performance.now() < until) job.settle()
      assert.deepStrictEqual(read, [0, 1, 2])
      const twice = createHash("sha256").update(memory).update(memory).digest("hex")
      assert.strictEqual(yield* Effect.promise(() => digest(job)), twice)
    }))

  it.live("takes more chunks at once than it has room to be told of", () =>
    Effect.gen(function*() {
      const { thread: one } = yield* thread
      const job = one.begin("sha256")
      const memory = shared(randomBytes(50_000))
      const all = Promise.all(
        Array.from({ length: 5000 }, (_, index) => update(job, memory.subarray(index * 10, (index + 1) * 10)))
      )
      const hashed = digest(job)
      yield* Effect.promise(() => all)
      assert.strictEqual(yield* Effect.promise(() => hashed), hexOf(memory))
    }))

  it.live("lets go of a stream that nobody wants hashed any more, and gives its memory back", () =>
    Effect.gen(function*() {
      const { thread: one } = yield* thread
      const forgotten = one.begin("sha256")
      const given = Array.from({ length: 20 }, () => update(forgotten, randomBytes(500_000)))
      const kept = one.begin("sha256")
      const body = randomBytes(5_000_000)
      const hashed = hash(kept, body, 400_000)
      forgotten.forget()
      assert.strictEqual(yield* Effect.promise(() => hashed), hexOf(body))
      yield* Effect.promise(() => Promise.all(given))
      assert.strictEqual(one.jobs, 0)
    }))

  it.live("goes on without a thread that dies before it hashed anything", () =>
    Effect.gen(function*() {
      const { deaths, thread: one } = yield* thread
      const job = one.begin("sha256")
      const body = randomBytes(9_000_000)
      const hashed = hash(job, body, 700_000)
      yield* Effect.promise(() => one.terminate())
      assert.strictEqual(yield* Effect.promise(() => hashed), hexOf(body))
      assert.deepStrictEqual(deaths, [false])
    }))

  it.live("says that a digest is lost with a thread that had hashed some of it", () =>
    Effect.gen(function*() {
      const { deaths, thread: one } = yield* thread
      const job = one.begin("sha256")
      yield* Effect.promise(() => update(job, randomBytes(9_000_000)))
      yield* Effect.promise(() => one.terminate())
      yield* Effect.promise(() => update(job, randomBytes(1000)))
      assert.isUndefined(yield* Effect.promise(() => digest(job)))
      assert.deepStrictEqual(deaths, [true])
    }))

  it.live("leaves no thread behind", () =>
    Effect.gen(function*() {
      const workers = () => process.getActiveResourcesInfo().filter((name) => name === "MessagePort").length
      const before = workers()
      yield* Effect.scoped(Effect.gen(function*() {
        const threads = yield* DigestThreads.make
        yield* Effect.promise(() => hash(threads.begin("sha256"), randomBytes(100_000), 50_000))
      }))
      assert.strictEqual(workers(), before)
    }))
})

describe("VerifyingSink", () => {
  const body = randomBytes(3_000_000)
  const expected = { digest: Digest.Digest.make(`sha256:${hexOf(body)}`), size: body.length, start: 0 }

  const collecting = () => {
    const taken: Array<Buffer> = []
    // Some within the call, some later.
    const client: ClientWriter = (chunk, done) => {
      if (taken.length % 2 === 0) {
        taken.push(Buffer.from(chunk))
        return true
      }
      setImmediate(() => {
        taken.push(Buffer.from(chunk))
        done(true)
      })
      return false
    }
    return { client, bytes: () => Buffer.concat(taken) }
  }

  const write = (sink: VerifyingSink.VerifyingSink, chunk: Buffer) =>
    Effect.callback<void>((resume) => {
      if (sink.write(chunk, () => resume(Effect.void))) resume(Effect.void)
    })

  /** The first bytes are elsewhere, the others where the sink wants them. */
  const writeAll = Effect.fnUntraced(function*(sink: VerifyingSink.VerifyingSink, bytes: Buffer) {
    yield* write(sink, bytes.subarray(0, 50_000))
    for (let position = 50_000; position < bytes.length;) {
      const space = sink.space?.() ?? assert.fail("no space")
      const size = bytes.copy(space, 0, position, position + 700_000)
      position += size
      yield* write(sink, space.subarray(0, size))
    }
  })

  it.live("passes a right body on to its end", () =>
    Effect.gen(function*() {
      const verifier = yield* VerifyingSink.make
      const { bytes, client } = collecting()
      const verifying = yield* verifier.sink(expected, client)
      yield* writeAll(verifying, body)
      assert.isTrue(bytes().equals(body))
      assert.strictEqual(verifying.offset(), body.length)
    }).pipe(Effect.scoped, Effect.andThen(Effect.sync(() => assert.strictEqual(bodyBuffers.lent, 0)))))

  it.live("never passes the last chunk of a wrong one on, whichever byte is wrong", () =>
    Effect.gen(function*() {
      const verifier = yield* VerifyingSink.make
      for (const wrong of [0, 1_700_000, body.length - 1]) {
        const { bytes, client } = collecting()
        const verifying = yield* verifier.sink(expected, client)
        const poisoned = Buffer.from(body)
        poisoned[wrong] = ~(poisoned[wrong] ?? 0)
        yield* writeAll(verifying, poisoned.subarray(0, 2_999_000))
        assert.isFalse(verifying.write(poisoned.subarray(2_999_000), () => assert.fail("went on")))
        yield* verifying.wrong
        assert.isTrue(bytes().equals(poisoned.subarray(0, 2_999_000)))
      }
    }))

  it.live("does not send the end of a body whose hash is lost, and blames nobody", () =>
    Effect.gen(function*() {
      const job: DigestJob = { ...inline("sha256"), digest: (done) => done(undefined) }
      const { bytes, client } = collecting()
      const buffer = new BodyBuffer(body.length, true)
      const verifying = VerifyingSink.verifying(expected, job, buffer, client)
      yield* writeAll(verifying, body.subarray(0, 2_500_000))
      assert.isFalse(verifying.write(body.subarray(2_500_000), () => assert.fail("went on")))
      const exit = yield* Effect.exit(verifying.wrong)
      assert.isTrue(Exit.isFailure(exit))
      assert.strictEqual(bytes().length, 2_500_000)
      buffer.close()
    }))

  it.live("lets others have their turn while parts are passed on to clients that take all at once", () =>
    Effect.gen(function*() {
      const verifier = yield* VerifyingSink.make
      const chunk = Buffer.alloc(100_000)
      const end = 50_000_000
      const happened: Array<string> = []
      const pass = Effect.fnUntraced(function*(name: string, atMost: number) {
        const passing = yield* verifier.passing({ start: 0, end }, () => true)
        const { promise: resumed, resolve: resume } = Promise.withResolvers<void>()
        const goOn = () => {
          happened.push(name)
          resume()
        }
        while (passing.offset() < end && passing.write(chunk, goOn));
        assert.isBelow(passing.offset(), atMost)
        return { passing, resumed }
      })
      setImmediate(() => {
        happened.push("others")
        setImmediate(() => happened.push("others"))
      })
      const [first, second] = [yield* pass("first", 2_000_000), yield* pass("second", 10_000_000)]
      yield* Effect.promise(() => second.resumed)
      // Parts go on one in a turn, however many there are.
      assert.deepStrictEqual(happened, ["others", "first", "others", "second"])
      assert.isTrue(first.passing.write(chunk, () => assert.fail("taken at once")))
    }).pipe(Effect.scoped, Effect.andThen(Effect.sync(() => assert.strictEqual(bodyBuffers.lent, 0)))))
})
