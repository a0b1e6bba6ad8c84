import { assert, describe, it } from "@effect/vitest"
import * as Pace from "@spegel-ts/testing/registry/Pace"

/** What a sender has sent when it takes as much as it may until a time, in bytes. */
const sentBy = (pace: Pace.Pace, end: number, chunk: number): number => {
  let now = 0
  let sent = 0
  for (;;) {
    now += pace.take(chunk, now)
    if (now > end) return sent
    sent += chunk
  }
}

describe("Pace", () => {
  it("sends as much as a link does, whatever the size of the chunks", () => {
    for (const chunk of [1000, 65_536]) {
      const sent = sentBy(Pace.make(1_000_000), 10_000, chunk)
      assert.isAtLeast(sent, 10_000_000 - chunk)
      assert.isAtMost(sent, 10_010_000 + chunk)
    }
  })

  it("lets senders that come at once wait for each other", () => {
    const pace = Pace.make(1_000_000)
    assert.deepStrictEqual([1, 2, 3].map(() => pace.take(100_000, 0)), [90, 190, 290])
  })

  it("saves nothing up while nobody sends", () => {
    const pace = Pace.make(1_000_000)
    pace.take(100_000, 0)
    assert.strictEqual(pace.take(100_000, 5000), 90)
  })

  it("bounds nothing where it is Infinity", () => {
    assert.strictEqual(Pace.make(Infinity).take(1e9, 0), 0)
  })
})
