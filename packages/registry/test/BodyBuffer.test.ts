import { assert, describe, it } from "@effect/vitest"
import { BodyBuffer } from "@spegel-ts/registry/BodyBuffer"
import { bodyBuffers, largeSize, smallSize } from "@spegel-ts/registry/BufferPool"
import { random } from "./SeededRandom.ts"

const mib = 1024 ** 2

/** Bytes of chunks in use stay as they were until they are given back. */
class Chunk {
  readonly bytes: Buffer
  readonly mark: number
  constructor(bytes: Buffer, mark: number) {
    this.bytes = bytes.fill(mark)
    this.mark = mark
  }
  get intact(): boolean {
    return this.bytes.every((byte) => byte === this.mark)
  }
}

describe("BodyBuffer", () => {
  it("gives no space that is in use, whatever the order in which its users let go, and gives all of it back", () => {
    const { below, pick } = random(7)
    for (let turn = 0; turn < 60; turn++) {
      const bodies = Array.from({ length: 12 }, () => ({
        buffer: new BodyBuffer(64 * mib, below(2) === 0),
        inUse: [] as Array<{ chunk: Chunk; giveBack: () => void }>
      }))
      let mark = 0
      for (let step = 0; step < 200; step++) {
        const { buffer, inUse } = pick(bodies)
        if (buffer.free && below(3) > 0) {
          const chunk = new Chunk(buffer.space.subarray(0, 1 + below(3000)), mark++ % 256)
          const giveBack = buffer.lend(chunk.bytes, 2)
          inUse.push({ chunk, giveBack }, { chunk, giveBack })
          if (below(4) === 0) buffer.waited()
        } else if (inUse.length > 0) {
          const [used] = inUse.splice(below(inUse.length), 1)
          assert.isTrue(used?.chunk.intact)
          used?.giveBack()
        }
      }
      for (const { buffer, inUse } of bodies) {
        buffer.close()
        for (const { chunk, giveBack } of inUse) {
          assert.isTrue(chunk.intact)
          giveBack()
        }
      }
      assert.strictEqual(bodyBuffers.lent, 0)
    }
  })

  it("is not where file pages are copied to slowly: 16 bytes into a page, where large memory begins", () => {
    for (const size of [smallSize, 64 * mib]) {
      const buffer = new BodyBuffer(size, false)
      assert.isAtLeast(buffer.space.byteOffset, 32)
      assert.strictEqual((16 + buffer.space.byteOffset) % 64, 0)
      buffer.close()
    }
  })

  it("says when its space is free again, once", () => {
    const buffer = new BodyBuffer(64 * mib, false)
    let told = 0
    const giveBack = buffer.lend(buffer.space.subarray(0, 10), 2)
    assert.isFalse(buffer.free)
    buffer.whenFree(() => told++)
    giveBack()
    assert.strictEqual(told, 0)
    giveBack()
    assert.deepStrictEqual([told, buffer.free], [1, true])
    buffer.lend(buffer.space.subarray(0, 10), 1)()
    assert.strictEqual(told, 1)
    buffer.close()
  })

  it("reads into one part while the others are in use", () => {
    const buffer = new BodyBuffer(64 * mib, true)
    const lend = () => buffer.lend(buffer.space.subarray(0, 10), 1)
    const first = lend()
    assert.isTrue(buffer.free)
    const second = lend()
    assert.isTrue(buffer.free)
    const third = lend()
    assert.isFalse(buffer.free)
    third()
    second()
    assert.isFalse(buffer.free)
    first()
    assert.isTrue(buffer.free)
    buffer.close()
  })

  it("reads again into what was in use a moment ago, where it can", () => {
    const buffer = new BodyBuffer(64 * mib, true)
    const { byteOffset: begin } = buffer.space
    const part = () => (buffer.space.byteOffset - begin) / buffer.space.length
    const lend = () => ({ part: part(), giveBack: buffer.lend(buffer.space.subarray(0, 10), 1) })
    const first = lend()
    first.giveBack()
    const second = lend()
    const third = lend()
    const fourth = lend()
    assert.deepStrictEqual([first, second, third, fourth].map(({ part }) => part), [0, 1, 0, 2])
    // None is free: the oldest will be first.
    assert.strictEqual(part(), second.part)
    for (const { giveBack } of [second, third, fourth]) giveBack()
    buffer.close()
  })

  it("is small for a client that is slow, and large again once it is not", () => {
    const buffer = new BodyBuffer(640 * mib, false)
    const pass = () => {
      const giveBack = buffer.lend(buffer.space, 1)
      giveBack()
      buffer.waited()
    }
    assert.strictEqual(buffer.space.length, largeSize)
    const until = performance.now() + 250
    while (performance.now() < until);
    pass()
    pass()
    assert.strictEqual(buffer.space.length, smallSize)
    for (let chunk = 0; chunk < 3; chunk++) pass()
    assert.strictEqual(buffer.space.length, largeSize)
    buffer.close()
    assert.strictEqual(bodyBuffers.lent, 0)
  })
})
