import { assert, describe, it } from "@effect/vitest"
import * as Bar from "@spegel-ts/demo/Bar"
import * as Screen from "@spegel-ts/demo/Screen"
import { Effect } from "effect"

const mebibyte = 1024 * 1024
const half = {
  node: "node 1",
  total: 1024 * mebibyte,
  upstream: 512 * mebibyte,
  peers: 256 * mebibyte,
  millis: 123_456,
  isColoured: false
}

/** What a screen writes while two nodes pull. */
const written = (options: Omit<Screen.ScreenOptions, "write">) =>
  Effect.gen(function*() {
    const parts: Array<string> = []
    const screen = Screen.make({ ...options, write: (text) => parts.push(text) })
    yield* screen.say("hello")
    const bars = screen.bars(["node 1", "node 2"], 100)
    yield* bars.grow("node 1", "upstream", 100)
    yield* bars.finish("node 1", 10)
    yield* bars.grow("node 2", "peers", 100)
    yield* bars.finish("node 2", 10)
    return parts.join("")
  })

const escape = "\u001B"

describe("Bar", () => {
  it("shows sources by shade, and fits 80 columns", () => {
    const line = Bar.print(half)
    assert.isAtMost(line.length, 80)
    assert.include(line, `${"▒".repeat(12)}${"█".repeat(6)}${"·".repeat(6)}`)
    assert.notInclude(line, escape)
  })

  it("colours them where colours are wanted", () => {
    assert.include(Bar.print({ ...half, isColoured: true }), `${escape}[33m▒`)
  })

  it("is as wide as ever where more came than the image has", () => {
    assert.include(Bar.print({ ...half, upstream: 2 * half.total }), "▒".repeat(24))
  })
})

describe("Screen", () => {
  it.effect("prints each bar once on a pipe", () =>
    Effect.gen(function*() {
      const text = yield* written({ isSilent: false, isTerminal: false, isColoured: false })
      assert.match(text, /^hello\nnode 1 .*upstream\nnode 2 .*peers\n$/)
    }))

  it.effect("draws bars over each other on a terminal", () =>
    Effect.gen(function*() {
      const text = yield* written({ isSilent: false, isTerminal: true, isColoured: false })
      assert.include(text, `${escape}[2A${escape}[2Knode 1`)
    }))

  it.effect("prints nothing where there is JSON", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* written({ isSilent: true, isTerminal: true, isColoured: true }), "")
    }))
})
