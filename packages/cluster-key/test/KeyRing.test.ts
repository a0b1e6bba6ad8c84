import { assert, describe, it } from "@effect/vitest"
import * as ClientToken from "@spegel-ts/cluster-key/ClientToken"
import { generate, KeyRing } from "@spegel-ts/cluster-key/KeyRing"
import { ringOf } from "@spegel-ts/testing/ClusterKeys"
import { Result } from "effect"

const reasonOf = (text: string) =>
  Result.match(KeyRing.parse(text), { onFailure: ({ message }) => message, onSuccess: () => "none" })

describe("KeyRing", () => {
  it("reads a key a line, as files of other systems and repeated lines have them", () => {
    const [first, second] = [generate(), generate()]
    const ring = ringOf(first, second)
    for (
      const text of [`${first}\n${second}\n`, `\n${first}\r\n${second}`, `\uFEFF  ${first}\n${first}\n\n${second}\t`]
    ) {
      assert.isTrue(Result.getOrThrow(KeyRing.parse(text)).equals(ring), JSON.stringify(text))
    }
    assert.isFalse(ringOf(second, first).equals(ring))
  })

  it("refuses what is not a key, by its line, and tells nothing of its text", () => {
    const good = generate()
    const cases: ReadonlyArray<readonly [text: string, reason: string]> = [
      ["", "there is no key"],
      ["\n \n", "there is no key"],
      [`${good}\nsecret`, "line 2 is not a key"],
      [good.slice(0, -1), "line 1 is not a key"],
      [`${good}${good}`, "line 1 is not a key"],
      [good.replace(/=$/, "-"), "line 1 is not a key"],
      [Buffer.alloc(31, 7).toString("base64"), "line 1 is not a key"],
      [Buffer.alloc(32).toString("base64"), "line 1 is not random"],
      [Array.from({ length: 9 }, generate).join("\n"), "there are 9 keys, more than 8"]
    ]
    for (const [text, reason] of cases) {
      assert.isTrue(reasonOf(text).startsWith(`${reason}: expected`), `${reason}: ${reasonOf(text)}`)
      assert.notInclude(reasonOf(text), good.slice(0, 8))
    }
  })

  it("signs by the first key, and accepts all", () => {
    const [older, newer] = [generate(), generate()]
    const [before, during, after] = [ringOf(older), ringOf(newer, older), ringOf(newer)]
    const signed = before.current("router").sign(["text"])
    assert.isTrue(during.find("router", before.current("router").id)?.verifies(["text"], signed))
    assert.isUndefined(after.find("router", before.current("router").id))
    assert.strictEqual(during.current("router").id, after.current("router").id)
    assert.strictEqual(during.common("router", before.ids("router"))?.id, before.current("router").id)
    assert.isUndefined(after.common("router", before.ids("router")))
  })

  it("signs other bytes for another purpose, and for parts that join to the same text", () => {
    const ring = ringOf(generate())
    const key = ring.current("router")
    const signed = key.sign(["ab", "c"])
    assert.isTrue(key.verifies([Buffer.from("ab"), "c"], signed))
    for (const parts of [["a", "bc"], ["abc"], ["ab", "c", ""], ["", "ab", "c"]]) {
      assert.isFalse(key.verifies(parts, signed), JSON.stringify(parts))
    }
    assert.isFalse(ring.current("registry").verifies(["ab", "c"], signed))
    assert.isFalse(key.verifies(["ab", "c"], signed.subarray(0, 31)))
    assert.strictEqual(new Set(["router", "registry", "client"].map((p) => ring.ids(p as "router")[0])).size, 3)
  })
})

describe("ClientToken", () => {
  const [older, newer] = [generate(), generate()]
  const token = ClientToken.make(ringOf(older), "node-1.example") ?? ""

  it("names its node, at each mirror that has the key", () => {
    const keyId = ringOf(older).current("client").id
    assert.match(token, new RegExp(`^v1\\.${keyId}\\.node-1\\.example\\.[A-Za-z0-9_-]{43}$`))
    for (const ring of [ringOf(older), ringOf(newer, older)]) {
      assert.deepStrictEqual(ClientToken.verify(ring, token), { node: "node-1.example", keyId })
    }
    assert.isUndefined(ClientToken.verify(ringOf(newer), token))
  })

  it("is worth nothing with any part changed", () => {
    const ring = ringOf(older)
    const changed = [
      token.replace("node-1", "node-2"),
      token.replace("v1", "v2"),
      token.slice(0, -1),
      `${token}A`,
      token.replace(/\.[^.]*$/, `.${"A".repeat(43)}`),
      token.replace("node-1.example", ""),
      "",
      "Bearer"
    ]
    for (const text of changed) assert.isUndefined(ClientToken.verify(ring, text), text)
  })

  it("is made for names that nodes can have", () => {
    const ring = ringOf(older)
    for (const node of ["", ".", "a b", "a\nb", "ä", "-a", "a".repeat(254)]) {
      assert.isUndefined(ClientToken.make(ring, node), node)
    }
    assert.isDefined(ClientToken.make(ring, "a".repeat(253)))
  })
})
