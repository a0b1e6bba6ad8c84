import { assert, describe, it } from "@effect/vitest"
import type { Probed } from "@spegel-ts/registry/internal/follow/PeerProbe"
import { Step, Waiting, type WaitingOptions } from "@spegel-ts/registry/internal/follow/Waiting"
import type { DownloadState } from "@spegel-ts/registry/internal/share/DownloadState"

const state = (fields: Partial<DownloadState> = {}): DownloadState => ({
  origin: "upstream",
  written: 0,
  ageMillis: 0,
  instead: [],
  ...fields
})
const downloading = (fields: Partial<DownloadState> = {}): Probed => ({ _tag: "Downloading", state: state(fields) })

/** A wait that began at 0, of the first node that gives up. */
const begin = (options: Partial<WaitingOptions> = {}, turn = 0) => {
  const waiting = new Waiting({ self: "self", start: 0, longestMillis: 10_000, leases: true, ...options })
  waiting.begin(0, turn)
  return waiting
}
const ask = (id: string, afterMillis = 0) => Step.AskSource({ id, afterMillis })
const lease = (...inVain: ReadonlyArray<string>) => Step.AskForLease({ inVain })

describe("Waiting", () => {
  it("asks who downloads where nobody has said so, and then that node, again and again", () => {
    const waiting = begin()
    assert.deepStrictEqual(waiting.next(0), lease())
    waiting.leased("root", 1)
    assert.deepStrictEqual(waiting.next(1), ask("root"))
    assert.isFalse(waiting.answered("root", downloading(), 2))
    // A node that answers at once is not asked at once.
    assert.deepStrictEqual(waiting.next(2), ask("root", 199))
    assert.isFalse(waiting.answered("root", downloading(), 401))
    assert.deepStrictEqual(waiting.next(401), ask("root"))
    assert.isTrue(waiting.answered("root", downloading({ written: 1 }), 500))
  })

  it("does not ask for a lease where nodes give none", () => {
    assert.deepStrictEqual(begin({ leases: false }).next(0), Step.GiveUp())
  })

  it("goes down the tree, and up again where a node is silent", () => {
    const waiting = begin()
    waiting.said("root", state({ instead: ["a", "b", "self"] }), 0)
    assert.deepStrictEqual(waiting.next(0), ask("a"))
    waiting.answered("a", downloading({ origin: "peers", ageMillis: 1, instead: ["c", "d"] }), 1)
    assert.deepStrictEqual(waiting.next(1), ask("c"))
    waiting.silent("c")
    assert.deepStrictEqual(waiting.next(801), ask("d"))
    waiting.answered("d", { _tag: "Gone" }, 802)
    assert.deepStrictEqual(waiting.next(802), ask("b"))
    waiting.silent("b")
    assert.deepStrictEqual(waiting.next(803), ask("root"))
  })

  it("takes what is held, and a part that reaches beyond its own", () => {
    const waiting = begin({ start: 100 })
    assert.isTrue(waiting.answered("a", { _tag: "Held" }, 0))
    for (
      const [fields, isEnough] of [
        [{ written: 100 }, false],
        [{ written: 101 }, true],
        [{ written: 101, origin: "peers" }, true],
        [{ written: 101, origin: "stalled" }, false],
        [{ written: 101, instead: ["b"] }, false]
      ] as const
    ) assert.strictEqual(waiting.answered("a", downloading(fields), 0), isEnough)
  })

  it("asks for the lease again once the node that had it is gone, stalled, or silent for two seconds", () => {
    for (const answer of [{ _tag: "Gone" }, downloading({ origin: "stalled" }), undefined] as const) {
      const waiting = begin()
      assert.deepStrictEqual(waiting.next(0), lease())
      waiting.leased("root", 0)
      let now = 300
      if (answer !== undefined) waiting.answered("root", answer, now)
      else {
        waiting.silent("root")
        assert.deepStrictEqual(waiting.next(900), ask("root"))
        assert.deepStrictEqual(waiting.next(1999), Step.LookAgain())
        now = 2000
      }
      assert.deepStrictEqual(waiting.next(now), lease("root"))
      // It is not asked without a pause.
      assert.deepStrictEqual(waiting.next(now), Step.Pause({ millis: 200 }))
    }
  })

  it("does not wait for a node that has the lease and does not download", () => {
    const waiting = begin()
    waiting.next(0)
    waiting.leased("root", 0)
    waiting.answered("root", downloading({ origin: "peers", ageMillis: 999_999 }), 400)
    assert.deepStrictEqual(waiting.next(400), ask("root"))
    waiting.answered("root", downloading({ origin: "peers", ageMillis: 999_999 }), 800)
    assert.deepStrictEqual(waiting.next(800), lease("root"))
  })

  it("does not blame nodes that only know of the one that is gone", () => {
    const waiting = begin()
    waiting.said("root", state({ instead: ["a"] }), 0)
    waiting.said("a", state({ origin: "peers", ageMillis: 1 }), 1)
    waiting.next(1000)
    assert.deepStrictEqual(waiting.next(1999), ask("a"))
    waiting.answered("a", downloading({ origin: "peers", ageMillis: 2000 }), 2000)
    assert.deepStrictEqual(waiting.next(2000), Step.LookAgain())
    assert.deepStrictEqual(waiting.next(2000), lease("root"))
  })

  it("believes nobody who knows no more than the node that has failed", () => {
    const waiting = begin({ failed: "root", knownAt: -2000 })
    waiting.said("sibling", state({ origin: "peers", ageMillis: 1100 }), 0)
    assert.isFalse(waiting.isHopeful(0))
    assert.deepStrictEqual(waiting.next(0), lease("root"))
    waiting.said("sibling", state({ origin: "peers", ageMillis: 900 }), 0)
    assert.isTrue(waiting.isHopeful(0))
  })

  it("asks those that know less than others only if there is nobody else", () => {
    const waiting = begin({ failed: "gone", knownAt: -2000 })
    const child = state({ origin: "peers", ageMillis: 1900 })
    // These had the download from this node.
    waiting.said("child", child, 0)
    waiting.said("root", state({ instead: ["a", "b"] }), 0)
    waiting.said("other child", child, 0)
    assert.deepStrictEqual(waiting.next(0), ask("a"))
    // It has not heard of the root yet.
    waiting.answered("a", downloading({ origin: "peers", ageMillis: 2300 }), 400)
    assert.deepStrictEqual(waiting.next(400), ask("b"))
    waiting.answered("b", downloading({ origin: "peers", ageMillis: 2700 }), 800)
    assert.deepStrictEqual(waiting.next(800), ask("root"))
    waiting.answered("root", downloading({ instead: ["b", "a"] }), 801)
    assert.deepStrictEqual(waiting.next(801), ask("b"))
    for (const id of ["a", "b", "root"]) waiting.gone(id)
    assert.deepStrictEqual(waiting.next(802), ask("other child"))
  })

  it("looks for others once a second", () => {
    const waiting = begin()
    waiting.said("root", state(), 900)
    assert.deepStrictEqual(waiting.next(999), ask("root"))
    assert.deepStrictEqual(waiting.next(1000), Step.LookAgain())
    assert.deepStrictEqual(waiting.next(1001), ask("root", 198))
  })

  it("gives up after ten seconds with a node that shows that it downloads, and one node before the others", () => {
    const last = (turn: number) => {
      const waiting = begin({}, turn)
      let now = 0
      while (waiting.next(now)._tag !== "GiveUp") waiting.said("root", state(), ++now)
      return now
    }
    assert.deepStrictEqual([0, 1, 4].map(last), [10_001, 10_501, 12_001])
  })

  it("gives up after three seconds with nodes that only name others, from the first that did", () => {
    const last = (turn: number) => {
      const waiting = begin({}, turn)
      for (let now = 0;; now += 10) {
        const step = waiting.next(now)
        if (step._tag === "GiveUp") return now
        if (step._tag === "AskForLease" && now >= 1000) waiting.leased(`${now}`, now)
        if (step._tag === "AskSource") waiting.gone(step.id)
      }
    }
    // One second of them passed until somebody named one.
    assert.deepStrictEqual([0, 5].map(last), [4020, 5020])
  })

  it("remembers a bounded number of sources", () => {
    const waiting = begin()
    const ids = Array.from({ length: 100 }, (_, index) => `${index}`)
    waiting.said("root", state({ instead: ids }), 0)
    const asked = ids.map(() => {
      const step = waiting.next(0)
      if (step._tag === "AskSource") waiting.gone(step.id)
      return step._tag
    })
    assert.strictEqual(asked.filter((tag) => tag === "AskSource").length, 16)
  })
})
