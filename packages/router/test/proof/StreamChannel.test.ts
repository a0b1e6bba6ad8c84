import type { Stream } from "@libp2p/interface"
import { StreamChannel } from "@spegel-ts/router/internal/proof/StreamChannel"
import { assert, describe, it } from "vitest"
import { FakeStream } from "./FakeStream.ts"
import { endOf } from "./InMemory.ts"

const channelOn = (stream: FakeStream) => new StreamChannel(stream as unknown as Stream)

describe("StreamChannel", () => {
  it("carries frames of up to 4 KiB, in whatever parts they arrive", async () => {
    for (const length of [0, 1, 127, 128, 4096]) {
      const frame = Buffer.alloc(length, 7)
      const [from, to] = [new FakeStream(), new FakeStream()]
      channelOn(from).send(frame)
      const channel = channelOn(to)
      const received = channel.receive()
      for (const byte of from.sent[0] ?? []) to.arrive(byte)
      assert.isTrue(frame.equals(await received), `${length} bytes`)
    }
  })

  it("rejects a frame that is larger, before it has arrived", async () => {
    const stream = new FakeStream()
    const received = endOf(channelOn(stream).receive())
    stream.arrive(0x81, 0x20)
    assert.strictEqual(await received, "malformed")
  })

  it("rejects a third frame, which no exchange has", async () => {
    const stream = new FakeStream()
    const channel = channelOn(stream)
    stream.arrive(1, 1, 1, 2, 1, 3)
    assert.deepStrictEqual([...await channel.receive()], [1])
    assert.deepStrictEqual([...await channel.receive()], [2])
    assert.strictEqual(await endOf(channel.receive()), "malformed")
  })

  for (const kind of ["close", "remoteCloseWrite"] as const) {
    it(`gives out what has arrived before the end, and then says so: ${kind}`, async () => {
      const stream = new FakeStream()
      const channel = channelOn(stream)
      stream.arrive(1, 9)
      stream.end(kind)
      assert.deepStrictEqual([...await channel.receive()], [9])
      assert.strictEqual(await endOf(channel.receive()), "timeout")
    })
  }

  it("fails at once on a stream that has ended", async () => {
    const stream = new FakeStream()
    stream.status = "aborted"
    stream.writeStatus = "closed"
    const channel = channelOn(stream)
    channel.send(Uint8Array.of(1))
    assert.deepStrictEqual(stream.sent, [])
    assert.strictEqual(await endOf(channel.receive()), "timeout")
  })
})
