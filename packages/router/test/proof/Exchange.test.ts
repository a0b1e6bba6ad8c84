import { generate } from "@spegel-ts/cluster-key/KeyRing"
import { initiate, respond } from "@spegel-ts/router/internal/proof/Exchange"
import * as Frame from "@spegel-ts/router/internal/proof/Frame"
import { ringOf } from "@spegel-ts/testing/ClusterKeys"
import { sideOf, statementOf } from "@spegel-ts/testing/router/Sides"
import { assert, describe, it } from "vitest"
import { channel, endOf } from "./InMemory.ts"

/** An exchange of nodes a and b. */
const exchange = async (
  rings: readonly [a: ReturnType<typeof ringOf>, b: ReturnType<typeof ringOf>],
  change?: Parameters<typeof channel>[0]
) => {
  const [a, b] = channel(change)
  const initiated = initiate(a, sideOf("a", "b", rings[0], 1))
  const responded = respond(b, sideOf("b", "a", rings[1], 2))
  initiated.catch(() => b.end())
  responded.catch(() => a.end())
  return {
    ends: await Promise.all([endOf(initiated), endOf(responded)]),
    initiated,
    responded,
    frames: [a.sent, b.sent]
  }
}

/** Answers as the tag says, with other parts. */
const changed = (frame: Uint8Array, parts: Partial<Frame.Frame>): Uint8Array =>
  Frame.encode({ ...Frame.decode(frame), ...parts } as Frame.Frame)

describe("Exchange", () => {
  it("proves both sides and their statements to each other", async () => {
    const ring = ringOf(generate())
    const { initiated, responded } = await exchange([ring, ring])
    const keyId = ring.current("router").id
    assert.deepStrictEqual(await initiated, { keyId, statement: statementOf(2) })
    assert.deepStrictEqual(await responded, { keyId, statement: statementOf(1) })
  })

  it("uses a common key while nodes have read the file at different times", async () => {
    const [old, fresh] = [generate(), generate()]
    const rings = [ringOf(old), ringOf(old, fresh), ringOf(fresh, old), ringOf(fresh)] as const
    for (const [one, other] of [[0, 1], [1, 0], [0, 2], [1, 2], [2, 1], [2, 3], [3, 2], [1, 3]] as const) {
      assert.deepStrictEqual((await exchange([rings[one], rings[other]])).ends, ["proved", "proved"])
    }
  })

  it("tells both sides that they have no common key, and neither its statement", async () => {
    const { ends, frames: [, sent] } = await exchange([ringOf(generate()), ringOf(generate())])
    assert.deepStrictEqual(ends, ["other_key", "other_key"])
    assert.deepStrictEqual(sent?.map((frame) => Frame.decode(frame)), [{ _tag: "Refusal", reason: "other_key" }])
  })

  it("refuses a responder that names a key which it does not have", async () => {
    const ring = ringOf(generate())
    const forged = (frame: Uint8Array) =>
      Frame.decode(frame)._tag === "Answer" ? changed(frame, { signature: Buffer.alloc(32) }) : frame
    assert.deepStrictEqual((await exchange([ring, ring], forged)).ends, ["bad_signature", "bad_signature"])
  })

  it("refuses an initiator that names a key which it does not have", async () => {
    const ring = ringOf(generate())
    const forged = (frame: Uint8Array) =>
      Frame.decode(frame)._tag === "Confirmation" ? changed(frame, { signature: Buffer.alloc(32) }) : frame
    assert.deepStrictEqual((await exchange([ring, ring], forged)).ends, ["bad_signature", "bad_signature"])
  })

  for (const tag of ["Answer", "Confirmation"] as const) {
    it(`refuses any other statement than the signed one: ${tag}`, async () => {
      const ring = ringOf(generate())
      const lying = (frame: Uint8Array) => {
        if (Frame.decode(frame)._tag !== tag) return frame
        const lie = Buffer.from(frame)
        lie.writeUInt8(99, lie.length - 4)
        return lie
      }
      assert.deepStrictEqual((await exchange([ring, ring], lying)).ends, ["bad_signature", "bad_signature"])
    })
  }

  it("refuses a node in the middle that passes on what two members say", async () => {
    const ring = ringOf(generate())
    // Each member has a connection to the node in the middle, and knows it by the id that it has proved there.
    const [a, b] = channel()
    const initiated = initiate(a, sideOf("a", "middle", ring))
    const responded = respond(b, sideOf("b", "middle", ring))
    initiated.catch(() => b.end())
    responded.catch(() => a.end())
    assert.deepStrictEqual(await Promise.all([endOf(initiated), endOf(responded)]), ["bad_signature", "bad_signature"])
  })

  it("refuses an initiator that sends a responder's own signature back", async () => {
    const ring = ringOf(generate())
    const [attacker, victim] = channel()
    const responded = endOf(respond(victim, sideOf("victim", "attacker", ring)))
    attacker.send(Frame.encode({ _tag: "Opening", nonce: Buffer.alloc(16), keyIds: ring.ids("router") }))
    const answer = Frame.decode(await attacker.receive())
    if (answer._tag !== "Answer") throw new Error(answer._tag)
    attacker.send(Frame.encode({ ...answer, _tag: "Confirmation" }))
    assert.strictEqual(await responded, "bad_signature")
  })

  it("refuses a responder whose signature is the victim's own, from an exchange in the other direction", async () => {
    const ring = ringOf(generate())
    const [here, victim] = channel()
    const initiated = endOf(initiate(victim, sideOf("victim", "attacker", ring)))
    const opening = Frame.decode(await here.receive())
    if (opening._tag !== "Opening") throw new Error(opening._tag)
    const [there, again] = channel()
    void endOf(respond(again, sideOf("victim", "attacker", ring)))
    there.send(Frame.encode(opening))
    here.send(await there.receive())
    assert.strictEqual(await initiated, "bad_signature")
  })

  it("refuses a recorded exchange", async () => {
    const ring = ringOf(generate())
    const { frames: [fromA = [], fromB = []] } = await exchange([ring, ring])
    const [replayed, b] = channel()
    const responded = endOf(respond(b, sideOf("b", "a", ring, 2)))
    for (const frame of fromA) replayed.send(frame)
    assert.strictEqual(await responded, "bad_signature")
    const [a, replaying] = channel()
    const initiated = endOf(initiate(a, sideOf("a", "b", ring, 1)))
    for (const frame of fromB) replaying.send(frame)
    assert.strictEqual(await initiated, "bad_signature")
  })

  it("refuses frames that are none, and frames that are not due", async () => {
    const ring = ringOf(generate())
    const wrong = [
      Uint8Array.of(),
      Uint8Array.of(0),
      Uint8Array.of(1),
      Uint8Array.of(1, ...Buffer.alloc(17)),
      Uint8Array.of(2),
      Uint8Array.of(4),
      Uint8Array.of(9),
      Uint8Array.of(5),
      Uint8Array.of(5, 200)
    ]
    for (const frame of wrong) {
      for (const run of [initiate, respond]) {
        const [end, victim] = channel()
        end.send(frame)
        assert.strictEqual(await endOf(run(victim, sideOf("a", "b", ring))), "malformed", `${run.name} ${frame.join()}`)
      }
    }
  })

  it("gives up when the other side ends the exchange", async () => {
    const ring = ringOf(generate())
    const [, victim] = channel()
    const initiated = endOf(initiate(victim, sideOf("a", "b", ring)))
    victim.end()
    assert.strictEqual(await initiated, "timeout")
  })
})
