import { assert, describe, it } from "@effect/vitest"
import type { Connection, Stream } from "@libp2p/interface"
import { multiaddr } from "@multiformats/multiaddr"
import { FrameSplitter } from "@spegel-ts/router/internal/dht/rpc/FrameSplitter"
import { decode, encodeFrame, MessageType } from "@spegel-ts/router/internal/dht/rpc/Message"
import { message } from "@spegel-ts/router/internal/dht/rpc/Protocol"
import * as RpcServer from "@spegel-ts/router/internal/dht/rpc/RpcServer"

/** A stream whose peer reads when the test lets it. */
class SlowStream extends EventTarget {
  readStatus = "readable"
  readonly sent: Array<Uint8Array> = []
  full = false
  drain: () => void = () => undefined
  gone = false
  violations = 0
  aborted = false
  abort() {
    this.aborted = true
  }
  send(data: Uint8Array): boolean {
    if (this.gone) throw new Error("the stream is closed")
    this.sent.push(data)
    return !this.full
  }
  onDrain(): Promise<void> {
    return new Promise((resolve) => {
      this.drain = resolve
    })
  }
  pause() {
    this.readStatus = "paused"
  }
  resume() {
    this.readStatus = "readable"
  }
  receive(from: number, count: number) {
    const frames = Array.from(
      { length: count },
      (_, index) => encodeFrame(message(MessageType.ping, Buffer.from(String(from + index))))
    )
    const data = Buffer.concat(frames)
    this.dispatchEvent(Object.assign(new Event("message"), { data: { subarray: () => data } }))
  }
  /** The keys of the answers so far. */
  answers(): ReadonlyArray<number> {
    return new FrameSplitter().push(Buffer.concat(this.sent)).map((frame) => Number(Buffer.from(decode(frame).key)))
  }
}

const served = () => {
  const stream = new SlowStream()
  const connection = { remotePeer: "peer", remoteAddr: multiaddr("/ip4/127.0.0.9/tcp/1") }
  RpcServer.serve({ handle: (_from, _address, asked) => asked, onViolation: () => void stream.violations++ })(
    stream as unknown as Stream,
    connection as unknown as Connection
  )
  return stream
}

const turn = () => new Promise((resolve) => setImmediate(resolve))
const upTo = (count: number) => Array.from({ length: count }, (_, index) => index)

describe("RpcServer", () => {
  it("answers requests that arrive together in one write, in order", async () => {
    const stream = served()
    stream.receive(0, 100)
    await turn()
    assert.deepStrictEqual(stream.answers(), upTo(100))
    assert.strictEqual(stream.violations, 0)
    assert.strictEqual(stream.sent.length, 1)
  })

  it("stops reading while the peer does not read, and loses nothing", async () => {
    const stream = served()
    stream.full = true
    stream.receive(0, 10)
    assert.strictEqual(stream.readStatus, "paused")
    // These were in transit.
    stream.receive(10, 300)
    assert.deepStrictEqual(stream.answers(), upTo(10))
    stream.full = false
    stream.drain()
    for (let turns = 0; turns < 10; turns++) await turn()
    assert.deepStrictEqual(stream.answers(), upTo(310))
    assert.strictEqual(stream.violations, 0)
    assert.strictEqual(stream.readStatus, "readable")
  })

  it("does not count it as a violation if the peer closes before it has its answers", async () => {
    const stream = served()
    stream.gone = true
    stream.receive(0, 300)
    for (let turns = 0; turns < 5; turns++) await turn()
    assert.isTrue(stream.aborted)
    assert.strictEqual(stream.violations, 0)
  })

  it("lets other work run during a long burst", async () => {
    const stream = served()
    stream.receive(0, 1000)
    assert.isBelow(stream.answers().length, 200)
    for (let turns = 0; turns < 20; turns++) await turn()
    assert.deepStrictEqual(stream.answers(), upTo(1000))
    assert.strictEqual(stream.violations, 0)
  })
})
