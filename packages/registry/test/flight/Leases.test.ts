import { assert, describe, it } from "@effect/vitest"
import * as Deciders from "@spegel-ts/registry/internal/flight/Deciders"
import * as Lease from "@spegel-ts/registry/internal/flight/Lease"
import { Leases } from "@spegel-ts/registry/internal/flight/Leases"

const content = "sha256:0"
const go: Lease.Decision = { _tag: "Go" }
const wait = (id: string): Lease.Decision => ({ _tag: "Wait", id })
const asks = (leases: Leases, asker: string, now: number, ...inVain: ReadonlyArray<string>) =>
  leases.ask(content, { asker, verb: "ask", inVain }, now)

describe("Leases", () => {
  it("lets one node download, and the others wait for it", () => {
    const leases = new Leases(1)
    assert.deepStrictEqual(["a", "b", "c", "a"].map((id) => asks(leases, id, 0)), [go, wait("a"), wait("a"), go])
    assert.deepStrictEqual(leases.ask("sha256:1", { asker: "b", verb: "ask", inVain: [] }, 0), go)
  })

  it("lets as many download as are allowed", () => {
    const leases = new Leases(2)
    assert.deepStrictEqual(["a", "b", "c", "a", "b"].map((id) => asks(leases, id, 0)), [go, go, wait("a"), go, go])
  })

  it("gives the lease to the next one that waited in vain, and to one only", () => {
    const leases = new Leases(1)
    asks(leases, "a", 0)
    // The holder has not begun yet.
    assert.deepStrictEqual(asks(leases, "b", 999, "a"), wait("a"))
    assert.deepStrictEqual(asks(leases, "b", 1000, "a"), go)
    assert.deepStrictEqual(asks(leases, "c", 1000, "a"), wait("b"))
    assert.deepStrictEqual(asks(leases, "c", 1500, "a", "b"), wait("b"))
  })

  it("gives a node no lease again that others waited for in vain, though it may go on alone", () => {
    const leases = new Leases(1)
    asks(leases, "a", 0)
    asks(leases, "b", 2000, "a")
    asks(leases, "c", 4000, "a", "b")
    assert.deepStrictEqual(asks(leases, "a", 5000, "c"), go)
    assert.deepStrictEqual(asks(leases, "d", 5000), go)
    assert.deepStrictEqual(asks(leases, "a", 6000), wait("d"))
    assert.deepStrictEqual(asks(leases, "a", 100_000), go)
    assert.deepStrictEqual(asks(leases, "b", 100_000), wait("a"))
  })

  it("believes the node that another one has let download", () => {
    const holds = (leases: Leases, asker: string) => leases.ask(content, { verb: "hold", asker, inVain: [] }, 0)
    const leases = new Leases(1)
    asks(leases, "a", 0)
    holds(leases, "b")
    assert.deepStrictEqual(asks(leases, "c", 1), wait("b"))
    const two = new Leases(2)
    for (const id of ["a", "b", "c"]) holds(two, id)
    assert.deepStrictEqual(asks(two, "d", 1), wait("a"))
    assert.deepStrictEqual(asks(two, "d", 1000, "a"), go)
  })

  it("ends a lease after a while", () => {
    const leases = new Leases(1)
    asks(leases, "a", 0)
    assert.deepStrictEqual(asks(leases, "b", 29_999), wait("a"))
    assert.deepStrictEqual(asks(leases, "b", 30_000), go)
    assert.deepStrictEqual(asks(leases, "c", 30_001), wait("b"))
  })
})

describe("Lease", () => {
  it("is read as it was printed, and nothing else is", () => {
    for (
      const asked of [
        { asker: "12D3KooW", verb: "ask", inVain: [] },
        { asker: "a", verb: "ask", inVain: ["b", "c"] },
        { asker: "a", verb: "hold", inVain: [] },
        { asker: "a", verb: "pass", inVain: ["b"] }
      ] as const
    ) {
      assert.deepStrictEqual(Lease.parseAsked(Lease.printAsked(asked)), asked)
    }
    for (const decision of [go, wait("12D3KooW")]) assert.deepStrictEqual(Lease.parse(Lease.print(decision)), decision)
    const many = Array.from({ length: 9 }, (_, index) => String(index))
    for (
      const text of [
        "",
        "ask",
        "ask  a",
        "ask a ",
        "ask \u00e4",
        Lease.printAsked({ asker: "a", verb: "ask", inVain: many }),
        `ask ${"a".repeat(129)}`
      ]
    ) {
      assert.isUndefined(Lease.parseAsked(text), text)
    }
    for (const text of [undefined, "", "Go", "go a", "wait", "wait a b"]) assert.isUndefined(Lease.parse(text), text)
  })
})

describe("Deciders", () => {
  const peer = (id: string, proved = true) => ({
    id,
    addresses: ["127.0.0.1"],
    servicePort: 1,
    proved
  })
  const ids = ["a", "b", "c", "d", "e"]

  it("are the same ones wherever they are chosen, and others for other contents", () => {
    const chosen = ids.map((self) =>
      Deciders.choose(content, self, ids.filter((id) => id !== self).map((id) => peer(id)))
    )
    assert.strictEqual(new Set(chosen.map((three) => three.join())).size, 1)
    assert.strictEqual(chosen[0]?.length, 3)
    const firsts = Array.from(
      { length: 500 },
      (_, index) => Deciders.choose(`sha256:${index}`, "a", ids.map((id) => peer(id)))[0]
    )
    for (const id of ids) assert.isAtLeast(firsts.filter((first) => first === id).length, 60)
  })

  it("are members that have proved the key", () => {
    assert.deepStrictEqual(Deciders.choose(content, "a", [peer("b", false)]), ["a"])
  })
})
