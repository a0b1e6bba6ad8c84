import type { Connection, Stream } from "@libp2p/interface"
import type { Admission, Outcome } from "@spegel-ts/router/internal/proof/Admission"
import { whenAdmitted } from "@spegel-ts/router/internal/proof/HeldStreams"
import { assert, describe, it } from "vitest"

const unproved: Outcome = { _tag: "Unproved" }
const refused: Outcome = { _tag: "Refused", reason: "other_key" }

const fakeStream = () => {
  const done: Array<string> = []
  const stream = {
    status: "open",
    remoteWriteStatus: "writable",
    maxReadBufferLength: 1,
    pause: () => done.push("pause"),
    resume: () => done.push("resume"),
    abort: () => done.push("abort"),
    close: () => Promise.resolve(void done.push("close"))
  }
  return { done, fake: stream, stream: stream as unknown as Stream }
}

/** A handler of streams on one connection, which the test admits or refuses. */
const start = (now?: Outcome) => {
  const decided = Promise.withResolvers<Outcome>()
  const state = { now }
  const admission: Admission = { now: () => state.now, settled: () => decided.promise }
  const handled: Array<Stream> = []
  const connection = {} as Connection
  const handle = whenAdmitted(admission, (stream) => void handled.push(stream))
  const decide = async (outcome: Outcome) => {
    state.now = outcome
    decided.resolve(outcome)
    await new Promise((resolve) => setImmediate(resolve))
  }
  return { decide, handled, open: (stream: Stream) => void handle(stream, connection) }
}

describe("whenAdmitted", () => {
  it("hands streams of admitted connections on at once, and aborts those of refused ones", () => {
    const [one, other] = [fakeStream(), fakeStream()]
    const admitted = start(unproved)
    admitted.open(one.stream)
    assert.deepStrictEqual([admitted.handled, one.done], [[one.stream], []])
    const denied = start(refused)
    denied.open(other.stream)
    assert.deepStrictEqual([denied.handled, other.done], [[], ["abort"]])
  })

  it("does not read a stream before its connection is admitted, and bounds what it keeps", async () => {
    const { decide, handled, open } = start()
    const { done, fake, stream } = fakeStream()
    open(stream)
    assert.deepStrictEqual([handled, done, fake.maxReadBufferLength], [[], ["pause"], 64 * 1024])
    await decide(unproved)
    assert.deepStrictEqual([handled, done, fake.maxReadBufferLength], [[stream], ["pause", "resume"], 1])
  })

  it("aborts a held stream when its connection is refused", async () => {
    const { decide, handled, open } = start()
    const { done, stream } = fakeStream()
    open(stream)
    await decide(refused)
    assert.deepStrictEqual([handled, done], [[], ["pause", "abort"]])
  })

  it("closes a held stream after it was handled if the peer sends no more", async () => {
    const { decide, open } = start()
    const { done, fake, stream } = fakeStream()
    open(stream)
    fake.remoteWriteStatus = "closed"
    await decide(unproved)
    assert.deepStrictEqual(done, ["pause", "resume", "close"])
  })

  it("holds one stream of a connection only", async () => {
    const { decide, handled, open } = start()
    const [one, other] = [fakeStream(), fakeStream()]
    open(one.stream)
    open(other.stream)
    assert.deepStrictEqual(other.done, ["abort"])
    await decide(unproved)
    assert.deepStrictEqual(handled, [one.stream])
  })
})
