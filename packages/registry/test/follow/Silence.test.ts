import { assert, describe, it } from "@effect/vitest"
import type { Probed } from "@spegel-ts/registry/internal/follow/PeerProbe"
import { Silence, Step } from "@spegel-ts/registry/internal/follow/Silence"
import type { DownloadState } from "@spegel-ts/registry/internal/share/DownloadState"

const begin = (turn = 0) => new Silence(0, { turn, longestMillis: 10_000 })
const downloading = (fields: Partial<DownloadState> = {}): Probed => ({
  _tag: "Downloading",
  state: { origin: "peers", written: 0, ageMillis: 0, instead: [], ...fields }
})

/** When the peer is left if it answers each question so, and sends nothing. */
const leftAt = (answer: (now: number) => Probed | undefined, turn = 0) => {
  const silence = begin(turn)
  let now = 0
  while (true) {
    const step = silence.next(0, now)
    if (step._tag === "Leave") return now
    if (step._tag === "Pause") now += step.millis
    else {
      const answered = answer(now)
      now += answered === undefined ? step.millis : 1
      if (answered !== undefined && silence.answered(answered, 0, now) !== undefined) return now
    }
  }
}

describe("Silence", () => {
  it("leaves a peer that does not answer after a while", () => {
    assert.strictEqual(leftAt(() => undefined), 1750)
  })

  it("leaves a peer at once whose download has ended, or stands still", () => {
    for (const answer of [{ _tag: "Gone" }, downloading({ origin: "stalled" })] as const) {
      assert.strictEqual(leftAt(() => answer), 501)
    }
  })

  it("leaves a peer that knows of no download from upstream any more, one node before the others", () => {
    const silent = (now: number) => downloading({ ageMillis: now })
    assert.approximately(leftAt(silent), 3000, 2)
    assert.approximately(leftAt(silent, 5), 4000, 2)
  })

  it("leaves a peer without a byte after ten seconds, whatever it shows", () => {
    assert.strictEqual(leftAt(() => downloading({ origin: "upstream" })), 10_000)
  })

  it("waits for its own client, which is slower", () => {
    const silence = begin()
    for (let now = 600; now < 60_000; now += 600) {
      assert.deepStrictEqual(silence.next(0, now), Step.AskPeer({ millis: 800 }))
      assert.isUndefined(silence.answered(downloading({ written: 1 }), 0, now))
    }
  })

  it("asks a peer that sends now and then whether it has more", () => {
    const silence = begin()
    let asked = 0
    for (let now = 100; now <= 10_000; now += 100) {
      if (silence.next(now, now)._tag !== "AskPeer") continue
      asked++
      assert.isUndefined(silence.answered(downloading({ written: now + 3 * 1024 ** 2 }), now, now))
    }
    assert.deepStrictEqual([asked, silence.hasMore], [5, true])
    silence.answered(downloading({ written: 1024 ** 2 }), 1, 10_001)
    assert.isFalse(silence.hasMore)
    silence.answered({ _tag: "Held" }, 1, 10_002)
    assert.isTrue(silence.hasMore)
  })

  it("knows how long it has known that the download goes on", () => {
    const silence = begin()
    silence.next(1, 100)
    assert.strictEqual(silence.provedAt, 100)
    silence.answered(downloading({ ageMillis: 300 }), 1, 1000)
    assert.strictEqual(silence.provedAt, 700)
  })
})
