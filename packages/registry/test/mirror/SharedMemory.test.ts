import { assert, describe, it, vi } from "@effect/vitest"
import { SharedMemory } from "@spegel-ts/registry/internal/mirror/SharedMemory"

/** A body that notes what happens to its memory. */
const open = (memory: SharedMemory, name: string, events: Array<string>) => {
  const share = memory.open(() => events.push(`${name} is lost`))
  const take = (bytes: number) => {
    if (share.take(bytes, () => events.push(`${name} has ${bytes} more`))) events.push(`${name} has ${bytes} more`)
  }
  return { ...share, take }
}

describe("SharedMemory", () => {
  it("makes the largest share give up for one that has less, which then gets its memory", () => {
    const events: Array<string> = []
    const memory = new SharedMemory(100, 60_000)
    const [middle, large, small] = ["middle", "large", "small"].map((name) => open(memory, name, events))
    middle?.take(30)
    large?.take(60)
    small?.take(15)
    assert.deepStrictEqual(events, ["middle has 30 more", "large has 60 more", "large is lost"])
    large?.release()
    assert.deepStrictEqual(events.slice(3), ["small has 15 more"])
    // Once only.
    large?.release()
    const rest = open(memory, "rest", events)
    rest.take(56)
    assert.deepStrictEqual(events.slice(4), [])
    small?.release()
    assert.deepStrictEqual(events.slice(4), ["rest has 56 more"])
  })

  it("says once that memory is taken, also if the share that gives up is released at once", () => {
    const memory = new SharedMemory(100, 60_000)
    const large = memory.open(() => large.release())
    assert.isTrue(large.take(100, () => assert.fail()))
    const small = memory.open(() => {})
    assert.isTrue(small.take(20, () => assert.fail("it is told by the result")))
    assert.isTrue(small.take(80, () => assert.fail()))
  })

  it("takes nothing from smaller shares or complete bodies: the waiting one waits for their end", () => {
    const events: Array<string> = []
    const memory = new SharedMemory(100, 60_000)
    const [complete, small, growing] = ["complete", "small", "growing"].map((name) => open(memory, name, events))
    complete?.take(80)
    complete?.keep()
    small?.take(8)
    growing?.take(12)
    growing?.take(10)
    assert.deepStrictEqual(events.slice(2), ["growing has 12 more"])
    // It waits with more than another wants: it is the largest then.
    open(memory, "tiny", events).take(1)
    assert.deepStrictEqual(events.slice(3), ["growing is lost"])
    growing?.release()
    assert.deepStrictEqual(events.slice(4), ["tiny has 1 more"])
  })

  it("gives a body that is larger than all memory all memory", () => {
    const events: Array<string> = []
    const memory = new SharedMemory(100, 60_000)
    const large = open(memory, "large", events)
    large.take(70)
    large.take(70)
    large.take(1000)
    assert.deepStrictEqual(events, ["large has 70 more", "large has 70 more", "large has 1000 more"])
    large.release()
    open(memory, "next", events).take(100)
    assert.strictEqual(events.at(-1), "next has 100 more")
  })

  it("forgets a waiting share that is released", () => {
    const events: Array<string> = []
    const memory = new SharedMemory(100, 60_000)
    const first = open(memory, "first", events)
    first.take(100)
    first.keep()
    const gone = open(memory, "gone", events)
    gone.take(50)
    gone.release()
    const next = open(memory, "next", events)
    next.take(60)
    first.release()
    assert.deepStrictEqual(events.slice(1), ["next has 60 more"])
  })

  it("makes a share give up that has waited for too long, and none that has its memory", () => {
    vi.useFakeTimers()
    try {
      const events: Array<string> = []
      const memory = new SharedMemory(100, 500)
      const complete = open(memory, "complete", events)
      complete.take(90)
      complete.keep()
      const [late, gone, served] = ["late", "gone", "served"].map((name) => open(memory, name, events))
      late?.take(20)
      gone?.take(20)
      vi.advanceTimersByTime(300)
      served?.take(20)
      gone?.release()
      vi.advanceTimersByTime(199)
      assert.deepStrictEqual(events.slice(1), [])
      vi.advanceTimersByTime(1)
      assert.deepStrictEqual(events.slice(1), ["late is lost"])
      late?.release()
      complete.release()
      assert.deepStrictEqual(events.slice(2), ["served has 20 more"])
      vi.advanceTimersByTime(60_000)
      assert.deepStrictEqual(events.slice(3), [])
      assert.strictEqual(vi.getTimerCount(), 0)
    } finally {
      vi.useRealTimers()
    }
  })
})
