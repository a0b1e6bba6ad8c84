import { assert, describe, it } from "@effect/vitest"
import * as Digest from "@spegel-ts/oci/Digest"
import { Choice, choose } from "@spegel-ts/registry/internal/mirror/TagChoice"
import type { Peer } from "@spegel-ts/router/Peer"

const [a, b, c] = ["a", "b", "c"].map((text) => Digest.ofBytes(Buffer.from(text))) as [
  Digest.Digest,
  Digest.Digest,
  Digest.Digest
]
let ids = 0
/** A peer with an id of its own. */
const peer = (address: string, proved = true): Peer => ({
  id: `peer ${ids++}`,
  addresses: [address],
  servicePort: 1,
  proved
})
const claim = (digest: Digest.Digest, address: string, proved = true) => ({ digest, peer: peer(address, proved) })
const chosen = (digest: Digest.Digest) => Choice.Chosen({ digest })
const modes = ["off", "prefer", "require"] as const
const keyed = ["prefer", "require"] as const

describe("TagChoice", () => {
  it("counts addresses and not ids, in every mode", () => {
    const liars = Array.from({ length: 16 }, () => claim(b, "10.0.0.66"))
    for (const mode of modes) {
      const { choice, disagreement } = choose(mode, {
        claims: [...liars, claim(a, "10.0.0.1"), claim(a, "10.0.0.2")],
        unanswered: []
      })
      assert.deepStrictEqual(choice, chosen(a))
      assert.strictEqual(disagreement, `2 say ${a}, 1 say ${b}`)
    }
  })

  it("knows an address by each of its spellings", () => {
    for (
      const [one, other] of [
        ["10.0.0.66", "::ffff:10.0.0.66"],
        ["10.0.0.66", "::FFFF:0a00:0042"],
        ["fd00::1", "FD00:0:0:0:0:0:0:1"]
      ] as const
    ) {
      const { choice } = choose("require", {
        claims: [claim(b, one), claim(b, other), claim(a, "10.0.0.1")],
        unanswered: []
      })
      assert.strictEqual(choice._tag, "Undecided", `${one} and ${other}`)
    }
    // Neighbours are not one machine.
    const { choice } = choose("require", {
      claims: [claim(a, "fd00::1"), claim(a, "fd00::2"), claim(b, "fd00::3")],
      unanswered: []
    })
    assert.deepStrictEqual(choice, chosen(a))
  })

  it("leaves a tie to upstream, of two digests or three, also below one that has less", () => {
    for (
      const [claims, said] of [
        [[claim(a, "1"), claim(b, "2")], `1 say ${a}, 1 say ${b}`],
        [[claim(b, "1"), claim(a, "2")], `1 say ${b}, 1 say ${a}`],
        [[claim(a, "1"), claim(b, "2"), claim(c, "3")], `1 say ${a}, 1 say ${b}, 1 say ${c}`],
        [
          [claim(c, "5"), claim(a, "1"), claim(b, "2"), claim(a, "3"), claim(b, "4")],
          `2 say ${a}, 2 say ${b}, 1 say ${c}`
        ],
        // One machine that says both, as behind a gateway.
        [[claim(a, "1"), claim(b, "1")], `1 say ${a}, 1 say ${b}`]
      ] as const
    ) {
      for (const mode of modes) {
        assert.deepStrictEqual(
          choose(mode, { claims, unanswered: [] }).choice,
          Choice.Undecided({ reason: `peers disagree (${said})` })
        )
      }
    }
  })

  it("gives a machine no say in the votes of others: it may support each digest once", () => {
    const liar = [a, b, c].flatMap((digest) => Array.from({ length: 5 }, () => claim(digest, "10.0.0.66")))
    for (const mode of modes) {
      const honest = [claim(a, "1"), claim(a, "2"), claim(a, "3"), claim(b, "4")]
      assert.deepStrictEqual(choose(mode, { claims: [...liar, ...honest], unanswered: [] }).choice, chosen(a))
    }
  })

  it("takes a lone claim where nobody proves anything, or from a peer that proved itself", () => {
    const lone = (mode: (typeof modes)[number], proved: boolean) =>
      choose(mode, { claims: [claim(a, "1", proved), claim(a, "1", proved)], unanswered: [] })
    for (const mode of modes) assert.deepStrictEqual(lone(mode, true), { choice: chosen(a), disagreement: undefined })
    assert.deepStrictEqual(lone("off", false).choice, chosen(a))
    for (const mode of keyed) {
      assert.deepStrictEqual(
        lone(mode, false).choice,
        Choice.Undecided({ reason: "only a peer says so that has not proved itself" })
      )
    }
    // Two addresses agree, as in a cluster that has no key yet.
    const two = { claims: [claim(a, "1", false), claim(a, "2", false)], unanswered: [] }
    assert.deepStrictEqual(modes.map((mode) => choose(mode, two).choice._tag), ["Chosen", "Chosen", "Undecided"])
  })

  it("lets the claims of peers that proved themselves outrank all others", () => {
    const others = ["4", "5", "6", "6"].map((address) => claim(b, address, false))
    for (const mode of keyed) {
      const { choice, disagreement } = choose(mode, { claims: [...others, claim(a, "1")], unanswered: [] })
      assert.deepStrictEqual([choice, disagreement], [chosen(a), undefined])
    }
    assert.deepStrictEqual(choose("off", { claims: [...others, claim(a, "1")], unanswered: [] }).choice, chosen(b))
  })

  it("needs as many votes as there are addresses that did not answer, if there is a key", () => {
    const silent = (count: number, proved = true) =>
      Array.from({ length: count }, (_, index) => [peer(`silent ${index}`, proved), peer(`silent ${index}`, proved)])
        .flat()
    const lone = [claim(a, "1")]
    for (const mode of keyed) {
      assert.deepStrictEqual(choose(mode, { claims: lone, unanswered: silent(1) }).choice, chosen(a))
      assert.deepStrictEqual(
        choose(mode, { claims: lone, unanswered: silent(2) }).choice,
        Choice.Undecided({ reason: `1 say ${a}, and 2 did not answer in time` })
      )
      // Those without proof are not missed; nor are further ids of who has answered.
      assert.deepStrictEqual(choose(mode, { claims: lone, unanswered: silent(5, false) }).choice, chosen(a))
      assert.deepStrictEqual(
        choose(mode, { claims: lone, unanswered: [peer("1"), peer("1"), peer("2")] }).choice,
        chosen(a)
      )
    }
    assert.deepStrictEqual(choose("off", { claims: lone, unanswered: silent(9) }).choice, chosen(a))
    // A claim without proof has to have more votes than those who may differ, with proof or without.
    const unproved = [claim(a, "1", false), claim(a, "2", false)]
    for (const proved of [true, false]) {
      assert.strictEqual(
        choose("prefer", { claims: unproved, unanswered: silent(3, proved) }).choice._tag,
        "Undecided"
      )
    }
  })

  it("chooses nothing if nobody says anything", () => {
    assert.strictEqual(choose("off", { claims: [], unanswered: [] }).choice._tag, "Undecided")
  })
})
