import { assert, describe, it } from "@effect/vitest"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import { toDhtKey } from "@spegel-ts/router/ContentKey"
import { FrameSplitter, InvalidFrame, maxFrameSize } from "@spegel-ts/router/internal/dht/rpc/FrameSplitter"
import {
  decode,
  encodeFrame,
  encodeFrames,
  type Message,
  MessageType
} from "@spegel-ts/router/internal/dht/rpc/Message"
import { Schema } from "effect"

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex")
const emptyKey = ContentKey.make("sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
const emptyKeyHex = "12200364e78be895cef9249b83b20cdb6362cd3c317f55240669624258bc449a86fc"
const none = { closer: [], providers: [] }

/** A frame without its length prefix. */
const body = (frame: Uint8Array) => {
  const [only] = new FrameSplitter().push(frame)
  return only ?? new Uint8Array()
}

const Bytes = (maximum: number) => Schema.Uint8Array.pipe(Schema.check(Schema.isMaxLength(maximum)))
const Id = Schema.Uint8Array.pipe(Schema.check(Schema.isMinLength(1), Schema.isMaxLength(64)))
const Peer = Schema.Struct({ id: Id, addresses: Schema.Array(Bytes(128)).pipe(Schema.check(Schema.isMaxLength(8))) })
const Peers = Schema.Array(Peer).pipe(Schema.check(Schema.isMaxLength(20)))

const plain = (message: Message) => ({
  type: message.type,
  key: hex(message.key),
  closer: message.closer.map(({ addresses, id }) => [hex(id), ...addresses.map(hex)]),
  providers: message.providers.map(({ addresses, id }) => [hex(id), ...addresses.map(hex)])
})

describe("Message", () => {
  it("equals what Go Spegel writes, to the byte", () => {
    assert.strictEqual(hex(toDhtKey(emptyKey)), emptyKeyHex)
    const getProviders = { ...none, type: MessageType.getProviders, key: toDhtKey(emptyKey) }
    assert.strictEqual(hex(encodeFrame(getProviders)), `2808031222${emptyKeyHex}5001`)
    assert.strictEqual(hex(encodeFrame({ ...none, type: MessageType.ping, key: new Uint8Array() })), "0408055001")
  })

  it.prop("decode reads what encode wrote", [
    Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 127 }))),
    Bytes(80),
    Peers,
    Peers
  ], ([
    type,
    key,
    closer,
    providers
  ]) => {
    const message = { type, key, closer, providers }
    assert.deepStrictEqual(plain(decode(body(encodeFrame(message)))), plain(message))
  })

  it.prop("encodes frames that differ in their keys as it encodes each one", [Bytes(80), Peers], ([key, providers]) => {
    const keys = [key, key.map((byte) => byte ^ 1), key.toReversed()]
    const like = { ...none, type: MessageType.addProvider, key, providers }
    assert.strictEqual(hex(encodeFrames(like, keys)), keys.map((key) => hex(encodeFrame({ ...like, key }))).join(""))
  })

  it("skips unknown fields", () => {
    const known = body(encodeFrame({ ...none, type: MessageType.ping, key: new Uint8Array() }))
    const unknown = Buffer.from([0x78, 0x01, 0x7a, 0x02, 0xff, 0xff, 0x7d, 1, 2, 3, 4, 0x79, 1, 2, 3, 4, 5, 6, 7, 8])
    assert.strictEqual(decode(Buffer.concat([unknown, known])).type, MessageType.ping)
  })

  it("enforces its bounds", () => {
    const peer = { id: new Uint8Array(38), addresses: Array.from({ length: 20 }, () => new Uint8Array(8)) }
    const many = decode(
      body(
        encodeFrame({
          type: 3,
          key: new Uint8Array(80),
          closer: Array.from({ length: 150 }, () => peer),
          providers: []
        })
      )
    )
    assert.strictEqual(many.closer.length, 100)
    assert.strictEqual(many.closer[0]?.addresses.length, 8)
    assert.throws(() => decode(body(encodeFrame({ ...none, type: 3, key: new Uint8Array(81) }))), "longer than 80")
  })

  it("reads 100,000 frames of garbage without harm", () => {
    let state = 1
    const next = (limit: number) => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
      return state % limit
    }
    const sample = encodeFrame({
      type: 3,
      key: toDhtKey(emptyKey),
      closer: [{ id: new Uint8Array(38), addresses: [new Uint8Array(8)] }],
      providers: []
    })
    let read = 0
    for (let frames = 0; frames < 100_000; frames++) {
      const bytes = next(2) === 0 ? Uint8Array.from({ length: next(60) }, () => next(256)) : body(sample).slice()
      for (let flips = next(4); flips > 0 && bytes.length > 0; flips--) bytes[next(bytes.length)] = next(256)
      try {
        decode(bytes)
        read++
      } catch (error) {
        assert.strictEqual((error as Error).name, "InvalidMessage")
      }
    }
    assert.isAbove(read, 1000)
  })
})

describe("FrameSplitter", () => {
  it.prop("returns the frames, however the stream is cut", [
    Schema.Array(Bytes(300)),
    Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 1, maximum: 50 })))
  ], ([
    payloads,
    cut
  ]) => {
    const stream = Buffer.concat(payloads.flatMap((payload) => [
      payload.length < 128
        ? Uint8Array.of(payload.length)
        : Uint8Array.of((payload.length & 0x7f) | 0x80, payload.length >> 7),
      payload
    ]))
    const splitter = new FrameSplitter()
    const frames: Array<string> = []
    for (let from = 0; from < stream.length; from += cut) {
      frames.push(...splitter.push(stream.subarray(from, from + cut)).map(hex))
    }
    assert.deepStrictEqual(frames, payloads.map(hex))
  })

  it("refuses a frame that is too large before it stores any of it", () => {
    const length = (bytes: number) => Uint8Array.of((bytes & 0x7f) | 0x80, ((bytes >> 7) & 0x7f) | 0x80, bytes >> 14)
    assert.throws(() => new FrameSplitter().push(length(maxFrameSize + 1)), InvalidFrame)
    assert.deepStrictEqual(new FrameSplitter().push(length(maxFrameSize)), [])
    assert.throws(() => new FrameSplitter().push(new Uint8Array(10).fill(0xff)), InvalidFrame)
  })
})
