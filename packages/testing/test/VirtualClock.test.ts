import { assert, describe, it } from "@effect/vitest"
import { simulate } from "@spegel-ts/bench/simulate/simulate"
import { VirtualClock } from "@spegel-ts/testing/dht/VirtualClock"

describe("VirtualClock", () => {
  it("runs timers in the order of their times, and of their setting where these are the same", async () => {
    const clock = new VirtualClock()
    const ran: Array<string> = []
    for (const [name, at] of [["c", 30], ["a", 10], ["d", 30], ["b", 20], ["late", 99]] as const) {
      clock.after(at, () => ran.push(`${name} ${clock.now}`))
    }
    clock.after(15, () => ran.push("cancelled"))()
    void clock.sleep(10).then(() => clock.sleep(5)).then(() => ran.push(`slept ${clock.now}`))
    await clock.pass(50)
    assert.deepStrictEqual(ran, ["a 10", "slept 15", "b 20", "c 30", "d 30"])
    assert.strictEqual(clock.now, 50)
  })
})

describe("simulate", { timeout: 60_000 }, () => {
  it("finds nearly all keys with a live provider in a small network with churn", async () => {
    const figures = await simulate({ nodes: 40, minutes: 1, churn: 0.05, seed: 7, grown: false })
    assert.isAbove(figures.lookups, 1000)
    assert.isAbove(figures.success, 0.99)
    assert.isAtMost(figures.hops.p99, 2)
  })
})
