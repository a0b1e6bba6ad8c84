import * as Statement from "@spegel-ts/router/internal/proof/Statement"
import { addressOf, statementOf } from "@spegel-ts/testing/router/Sides"
import { assert, describe, it } from "vitest"

describe("Statement", () => {
  it("reads what it has written", () => {
    const stated = [
      statementOf(7),
      { ...statementOf(0), addresses: [], zone: undefined, agent: "", servicePort: 65_535, capabilities: 0xffff_ffff },
      { ...statementOf(1), addresses: Array.from({ length: 8 }, (_, host) => addressOf(host)), zone: "z".repeat(128) }
    ]
    for (const statement of stated) assert.deepStrictEqual(Statement.decode(Statement.encode(statement)), statement)
  })

  it("leaves out addresses beyond the eighth", () => {
    const many = { ...statementOf(1), addresses: Array.from({ length: 20 }, (_, host) => addressOf(host)) }
    assert.strictEqual(Statement.decode(Statement.encode(many)).addresses.length, 8)
  })

  it("ignores what a later version adds", () => {
    const later = Buffer.concat([Statement.encode(statementOf(3)), Buffer.from("more")])
    later.writeUInt8(2)
    assert.deepStrictEqual(Statement.decode(later), statementOf(3))
  })

  it("rejects a statement that ends early, at every byte", () => {
    const whole = Statement.encode(statementOf(3))
    for (let length = 0; length < whole.length; length++) {
      assert.throws(() => Statement.decode(whole.subarray(0, length)), "malformed")
    }
  })

  it("rejects a zone with characters that could break a line of a log", () => {
    const bytes = Buffer.from(Statement.encode({ ...statementOf(3), zone: "a\nb" }))
    assert.throws(() => Statement.decode(bytes), "malformed")
    assert.isFalse(Statement.isZone("a\nb"))
    assert.isFalse(Statement.isZone(""))
    assert.isFalse(Statement.isZone("z".repeat(129)))
    assert.isTrue(Statement.isZone("eu-west-1a"))
  })

  it("rejects more than eight addresses, and one that is too long", () => {
    const head = Statement.encode({ ...statementOf(3), addresses: [] }).subarray(0, -1)
    assert.throws(() => Statement.decode(Buffer.concat([head, Uint8Array.of(9), Buffer.alloc(9)])), "malformed")
    assert.throws(() => Statement.decode(Buffer.concat([head, Uint8Array.of(1, 129), Buffer.alloc(129)])), "malformed")
  })
})
