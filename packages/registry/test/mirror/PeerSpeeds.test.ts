import { assert, describe, it } from "@effect/vitest"
import { Patience } from "@spegel-ts/registry/internal/mirror/Patience"
import { PeerSpeeds } from "@spegel-ts/registry/internal/mirror/PeerSpeeds"
import type { Peer } from "@spegel-ts/router/Peer"

const mebibyte = 1024 * 1024
const peer = (id: string): Peer => ({ id, addresses: [id], servicePort: 1 })
const [a, b, c, slow] = [peer("a"), peer("b"), peer("c"), peer("slow")] as const

describe("PeerSpeeds", () => {
  it("tells what others typically give where a peer gives a tenth of it", () => {
    const speeds = new PeerSpeeds()
    assert.isUndefined(speeds.typicalOfOthers(slow, 1, 0))
    speeds.gave(a, 50 * mebibyte, 1000, 0)
    speeds.gave(b, 100 * mebibyte, 1000, 0)
    speeds.gave(c, 900 * mebibyte, 1000, 0)
    assert.strictEqual(speeds.typicalOfOthers(slow, 10 * mebibyte, 0), 100 * mebibyte)
    assert.isUndefined(speeds.typicalOfOthers(slow, 10 * mebibyte + 1, 0))
    // A network that has become slow is no peer's fault: the last of each counts.
    for (const one of [a, b, c]) speeds.gave(one, 2 * mebibyte, 1000, 0)
    assert.isUndefined(speeds.typicalOfOthers(slow, mebibyte, 0))
    // Nor is a peer compared with itself.
    const alone = new PeerSpeeds()
    alone.gave(a, 100 * mebibyte, 1000, 0)
    assert.isUndefined(alone.typicalOfOthers(a, 1, 0))
  })

  it("learns nothing from a few bytes that came at once, and forgets", () => {
    const speeds = new PeerSpeeds()
    speeds.gave(a, mebibyte - 1, 999, 0)
    assert.isFalse(speeds.knowsOthers(slow, 0))
    speeds.gave(a, 1000, 1000, 0)
    assert.strictEqual(speeds.typicalOfOthers(slow, 1, 600_000), 1000)
    assert.isTrue(speeds.knowsOthers(slow, 600_000))
    assert.isUndefined(speeds.typicalOfOthers(slow, 1, 600_001))
    assert.isFalse(speeds.knowsOthers(slow, 600_001))
    assert.isFalse(speeds.knowsOthers(a, 0))
  })
})

describe("Patience", () => {
  it("is used up by waiting in vain, and refills by a twentieth of the time", () => {
    const patience = new Patience()
    assert.strictEqual(patience.left(0), 250)
    patience.spend(100, 0)
    assert.strictEqual(patience.left(0), 150)
    patience.spend(150, 0)
    assert.strictEqual(patience.left(399), 0)
    assert.strictEqual(patience.left(400), 20)
    assert.strictEqual(patience.left(60_000), 250)
    patience.spend(1250, 60_000)
    assert.strictEqual(patience.left(80_000), 0)
    assert.strictEqual(patience.left(80_400), 20)
  })
})
