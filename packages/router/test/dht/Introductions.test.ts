import { assert, describe, it } from "@effect/vitest"
import { Introductions } from "@spegel-ts/router/internal/dht/members/Introductions"
import { copied, MemberTable } from "@spegel-ts/router/internal/dht/members/MemberTable"

/** Records which members a node meets and when, on a clock that the test moves. Each meeting takes `meetingMillis`. */
const start = (meetingMillis: number) => {
  const clock = { now: 0, known: 10 }
  const timers: Array<{ readonly at: number; readonly run: () => void }> = []
  const met: Array<{ readonly id: string; readonly at: number }> = []
  const introductions = new Introductions({
    known: () => clock.known,
    isWanted: ({ id }) => id !== "far",
    meet: async ({ id }) => {
      met.push({ id, at: clock.now })
      clock.now += meetingMillis
    },
    now: () => clock.now,
    random: () => 0,
    after: (millis, run) => void timers.push({ at: clock.now + millis, run })
  })
  const table = new MemberTable(() => "")
  const member = (id: string) => table.candidate(copied(id, { id: Buffer.from(id), addresses: [] }))
  /** Runs the timer that is due next. */
  const next = async () => {
    const timer = timers.shift()
    if (timer === undefined) return
    clock.now = Math.max(clock.now, timer.at)
    timer.run()
    await new Promise((resolve) => setImmediate(resolve))
  }
  return { introductions, clock, member, met, next, timers }
}

describe("Introductions", () => {
  it("waits while the network grows", async () => {
    const { introductions, clock, member, met, next } = start(0)
    introductions.add([member("a")])
    for (const known of [20, 40, 80]) {
      clock.known = known
      await next()
      assert.deepStrictEqual(met, [])
    }
    // Less than a tenth more.
    clock.known = 85
    await next()
    assert.deepStrictEqual(met, [{ id: "a", at: 2000 }])
  })

  it("meets members one by one, with pauses proportional to the cost, of a second at most", async () => {
    for (const [meetingMillis, pause] of [[20, 90], [5000, 1000]] as const) {
      const { introductions, member, met, next } = start(meetingMillis)
      introductions.add([member("a"), member("b")])
      await next()
      await next()
      assert.deepStrictEqual(met, [{ id: "a", at: 500 }, { id: "b", at: 500 + meetingMillis + pause }])
    }
  })

  it("skips members heard from meanwhile and far ones, and starts again for new ones", async () => {
    const { introductions, member, met, next, timers } = start(0)
    const heard = member("heard")
    heard.lastHeard = 1
    introductions.add([heard, member("far"), member("a")])
    while (timers.length > 0) await next()
    assert.deepStrictEqual(met.map(({ id }) => id), ["a"])
    introductions.add([member("b")])
    while (timers.length > 0) await next()
    assert.deepStrictEqual(met.map(({ id }) => id), ["a", "b"])
  })
})
