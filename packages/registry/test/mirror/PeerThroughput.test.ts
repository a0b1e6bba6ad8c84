import { assert, describe, it } from "@effect/vitest"
import { PeerThroughput } from "@spegel-ts/registry/internal/mirror/PeerThroughput"
import type { Peer } from "@spegel-ts/router/Peer"

const mebibyte = 1024 * 1024
const peer = (id: string): Peer => ({ id, addresses: [id], servicePort: 1 })
const [a, b, c, slow] = [peer("a"), peer("b"), peer("c"), peer("slow")] as const

describe("PeerThroughput", () => {
  it("gives the median of the others where a peer gives a tenth of it or less", () => {
    const throughput = new PeerThroughput()
    assert.isUndefined(throughput.typicalOfOthers(slow, 1, 0))
    throughput.observe(a, 50 * mebibyte, 1000, 0)
    throughput.observe(b, 100 * mebibyte, 1000, 0)
    throughput.observe(c, 900 * mebibyte, 1000, 0)
    assert.strictEqual(throughput.typicalOfOthers(slow, 10 * mebibyte, 0), 100 * mebibyte)
    assert.isUndefined(throughput.typicalOfOthers(slow, 10 * mebibyte + 1, 0))
    // No peer is to blame for a network that has become slow: the last sample of each peer counts.
    for (const one of [a, b, c]) throughput.observe(one, 2 * mebibyte, 1000, 0)
    assert.isUndefined(throughput.typicalOfOthers(slow, mebibyte, 0))
    // Nor is a peer compared with itself.
    const alone = new PeerThroughput()
    alone.observe(a, 100 * mebibyte, 1000, 0)
    assert.isUndefined(alone.typicalOfOthers(a, 1, 0))
  })

  it("takes all peers of one address for one", () => {
    const throughput = new PeerThroughput()
    const named = (id: string): Peer => ({ id, addresses: ["liar"], servicePort: 1 })
    for (let index = 0; index < 16; index++) throughput.observe(named(`${index}`), 1000 * mebibyte, 1000, 0)
    for (const one of [a, b]) throughput.observe(one, 10 * mebibyte, 1000, 0)
    assert.isUndefined(throughput.typicalOfOthers(c, 10 * mebibyte, 0))
    const alone = new PeerThroughput()
    for (let index = 0; index < 16; index++) alone.observe(named(`${index}`), 1000 * mebibyte, 1000, 0)
    assert.isFalse(alone.knowsOthers(named("another"), 0))
  })

  it("ignores a few bytes that came at once, and forgets after ten minutes", () => {
    const throughput = new PeerThroughput()
    throughput.observe(a, mebibyte - 1, 999, 0)
    assert.isFalse(throughput.knowsOthers(slow, 0))
    throughput.observe(a, 1000, 1000, 0)
    assert.strictEqual(throughput.typicalOfOthers(slow, 1, 600_000), 1000)
    assert.isTrue(throughput.knowsOthers(slow, 600_000))
    assert.isUndefined(throughput.typicalOfOthers(slow, 1, 600_001))
    assert.isFalse(throughput.knowsOthers(slow, 600_001))
    assert.isFalse(throughput.knowsOthers(a, 0))
  })
})
