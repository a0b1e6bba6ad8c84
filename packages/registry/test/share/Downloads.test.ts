import { assert, describe, it } from "@effect/vitest"
import * as Digest from "@spegel-ts/oci/Digest"
import { ContentId } from "@spegel-ts/registry/ContentId"
import * as FollowPolicy from "@spegel-ts/registry/internal/follow/FollowPolicy"
import { PeerMemory } from "@spegel-ts/registry/internal/mirror/PeerMemory"
import * as DownloadState from "@spegel-ts/registry/internal/share/DownloadState"
import { Followers } from "@spegel-ts/registry/internal/share/Followers"
import * as Growth from "@spegel-ts/registry/internal/share/Growth"
import { Effect, Exit, Scope } from "effect"

const digest = Digest.ofBytes(Buffer.from("layer"))
const mebibyte = 1024 * 1024

describe("DownloadState", () => {
  it("is read as it was printed, and nothing else is", () => {
    for (
      const state of [
        { origin: "upstream", written: 0, ageMillis: 0, instead: [] },
        { origin: "peers", written: 123_456, ageMillis: 999_999, instead: ["12D3KooW", "b"] },
        { origin: "stalled", written: 1, ageMillis: 1500, instead: [] }
      ] as const
    ) assert.deepStrictEqual(DownloadState.parse(DownloadState.print(state)), state)
    const unproved = DownloadState.print({ origin: "peers", written: 0, ageMillis: Infinity, instead: [] })
    assert.strictEqual(unproved, "peers 0 999999")
    const asked = { asker: "12D3KooW", start: 1024 }
    assert.deepStrictEqual(DownloadState.parseAsked(DownloadState.printAsked(asked)), asked)
    const many = Array.from({ length: 9 }, (_, index) => ` ${index}`).join("")
    for (
      const text of [
        undefined,
        "",
        "upstream",
        "upstream 1",
        "upstream -1 0",
        "upstream 1 -1",
        "upstream 1 0 ",
        "upstream 1 1000000",
        "other 1 0",
        `peers 1 0${many}`,
        `peers ${"9".repeat(16)} 0`
      ]
    ) {
      assert.isUndefined(DownloadState.parse(text), text)
    }
    for (const text of [undefined, "", "accepted", "accepted a", "accepted a b", "accepted a 1 2", ["accepted a 1"]]) {
      assert.isUndefined(DownloadState.parseAsked(text), String(text))
    }
  })
})

describe("Growth", () => {
  const growth = (origin: "upstream" | "peers", grewAt: number, written: number): Growth.Growth => ({
    origin,
    since: 0,
    grewAt,
    written
  })

  it("is stalled without a byte after two seconds, or later where it grew slowly before", () => {
    for (
      const [origin, grewAt, written, now, expected] of [
        ["upstream", 0, 0, 5000, "upstream"],
        ["upstream", 0, 0, 5001, "stalled"],
        ["upstream", 10_000, 100 * mebibyte, 12_000, "upstream"],
        ["upstream", 10_000, 100 * mebibyte, 12_001, "stalled"],
        ["peers", 10_000, 100 * mebibyte, 13_000, "peers"],
        ["peers", 10_000, 100 * mebibyte, 13_001, "stalled"],
        // 2 s for 1 MiB.
        ["upstream", 10_000, 5 * mebibyte, 14_000, "upstream"],
        ["upstream", 10_000, 5 * mebibyte, 15_000, "upstream"],
        ["upstream", 10_000, 5 * mebibyte, 15_001, "stalled"],
        ["upstream", 100_000, mebibyte, 110_000, "upstream"],
        ["upstream", 100_000, mebibyte, 110_001, "stalled"]
      ] as const
    ) {
      assert.strictEqual(
        Growth.originOf(growth(origin, grewAt, written), written, now),
        expected,
        `${origin} at ${now}`
      )
    }
  })

  it("is not stalled before its first byte while upstream sends other layers", () => {
    assert.strictEqual(Growth.originOf(growth("upstream", 0, 0), 0, 9000, 4000), "upstream")
    assert.strictEqual(Growth.originOf(growth("upstream", 0, 0), 0, 9001, 4000), "stalled")
    assert.strictEqual(Growth.originOf(growth("upstream", 0, 9 * mebibyte), 9 * mebibyte, 9000, 9000), "stalled")
  })

  it("shows that a download from upstream goes on, by its own growth or by that of others", () => {
    for (
      const [of, evidence, expected] of [
        [undefined, 300, 300],
        [growth("upstream", 0, 0), -Infinity, 1000],
        [growth("peers", 500, 0), 300, 300],
        [growth("peers", 500, mebibyte), 300, 500],
        [growth("peers", 500, mebibyte), 700, 700]
      ] as const
    ) assert.strictEqual(Growth.shownAt(of, evidence, 1000), expected)
  })

  it("is dry if it has little more than another one, and does not know that more comes", () => {
    const state = { origin: "peers", written: 10 * mebibyte, ageMillis: 1001 } as const
    for (
      const [fields, start, expected] of [
        [{}, 10 * mebibyte - 1, true],
        [{}, 8 * mebibyte, false],
        [{ ageMillis: 1000 }, 9 * mebibyte, false],
        [{ origin: "upstream" }, 9 * mebibyte, false]
      ] as const
    ) assert.strictEqual(Growth.isDry({ ...state, ...fields }, start), expected)
  })

  it("is not stalled that has grown since it was looked at, or that nobody knows", () => {
    assert.strictEqual(Growth.originOf(growth("upstream", 0, mebibyte), 2 * mebibyte, 60_000), "upstream")
    assert.strictEqual(Growth.originOf(undefined, 0, 60_000), "peers")
  })
})

describe("Followers", () => {
  it.effect("are two; further ones are told their ids", () =>
    Effect.gen(function*() {
      const followers = new Followers()
      const scope = yield* Scope.make()
      const asks = (asker: string, start = 0) => followers.instead(digest, { asker, start }, 0)
      const admit = (asker: string) => Scope.provide(followers.admit(digest, { asker, start: 0 }), scope)
      assert.deepStrictEqual(asks("a"), [])
      yield* admit("a")
      yield* Effect.scoped(Effect.gen(function*() {
        yield* followers.admit(digest, { asker: "b", start: 0 })
        assert.deepStrictEqual([asks("c"), asks("c", 1), asks("a"), asks("b")], [["a", "b"], ["b", "a"], [], []])
      }))
      assert.deepStrictEqual(asks("c"), [])
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(followers.instead(Digest.ofBytes(Buffer.from("other")), { asker: "a", start: 0 }, 0), [])
    }))

  it("have a place before the first byte, for a while, and are named in turn", () => {
    const followers = new Followers()
    const asked = (asker: string) => ({ asker, start: 0 })
    followers.expect(digest, asked("a"), 1000)
    followers.expect(digest, asked("b"), 2000)
    const named = ["c", "d", "e", "f"].map((id) => followers.instead(digest, asked(id), 999)[0])
    assert.deepStrictEqual(named, ["a", "b", "a", "b"])
    assert.isTrue(followers.hasPlace(digest, asked("a"), 999))
    assert.isFalse(followers.hasPlace(digest, asked("c"), 999))
    assert.isTrue(followers.hasPlace(digest, asked("c"), 1000))
  })
})

describe("FollowPolicy", () => {
  it("lets one node give up first, and twice as many in each step after", () => {
    const turns = Array.from({ length: 1000 }, (_, index) => FollowPolicy.turnOf(1000, index / 1000))
    const within = (steps: number) => turns.filter((turn) => turn <= steps).length
    assert.isAtMost(within(0), 2)
    assert.isAtMost(within(1), 4)
    assert.approximately(within(5) / within(4), 2, 0.3)
    assert.strictEqual(FollowPolicy.turnOf(1, 0.5), 0)
  })
})

describe("a peer that sent wrong bytes of a download that it had in progress", () => {
  const peer = { id: "a", addresses: ["192.0.2.1"], servicePort: 5000 }
  const content = ContentId.Digest({ digest })

  it("is no liar, and is left out for some minutes", () => {
    const memory = new PeerMemory({ hedgeMillis: 50, recordMillis: 600_000 })
    for (let turn = 0; turn < 5; turn++) {
      memory.took(peer, content, true)
      memory.corrupted([peer], content, turn, peer)
    }
    assert.strictEqual(memory.objection(peer, content, 10)?.cost, "wrong bytes")
    assert.isUndefined(memory.objection(peer, content, 400_000))
    assert.isUndefined(memory.objection(peer, ContentId.Digest({ digest: Digest.ofBytes(Buffer.from("other")) }), 10))
  })

  it("is one that sends wrong bytes of what it holds, though it had sent its download before", () => {
    const memory = new PeerMemory({ hedgeMillis: 50, recordMillis: 600_000 })
    memory.took(peer, content, true)
    memory.took(peer, content, false)
    memory.corrupted([peer], content, 0, peer)
    assert.strictEqual(memory.objection(peer, content, 400_000)?.cost, "wrong bytes")
  })
})
