import { assert, describe, it } from "@effect/vitest"
import { Senders } from "@spegel-ts/registry/internal/verify/Senders"
import type { Peer } from "@spegel-ts/router/Peer"

const at = (address: string, id = "a"): Peer => ({ id, addresses: [address], servicePort: 1 })

describe("Senders", () => {
  it("takes the same id at two addresses for two: we cannot tell which one lied", () => {
    const senders = new Senders()
    senders.sent(at("10.0.0.1"), 0, 50)
    senders.sent(at("10.0.0.66"), 50, 100)
    assert.deepStrictEqual(senders.all, [at("10.0.0.1"), at("10.0.0.66")])
    assert.isUndefined(senders.only(100))
  })

  it("knows the one that sent all, however often it was asked, and not one that sent less", () => {
    const senders = new Senders()
    senders.sent(at("10.0.0.1"), 0, 50)
    senders.sent(at("::ffff:10.0.0.1"), 50, 99)
    assert.isUndefined(senders.only(100))
    senders.sent(at("10.0.0.1"), 99, 100)
    assert.strictEqual(senders.only(100)?.id, "a")
    senders.mix()
    assert.isUndefined(senders.only(100))
  })
})
