import { assert, describe, it } from "@effect/vitest"
import * as Plot from "@spegel-ts/bench/Plot"

describe("Plot", () => {
  it("gives each group a scale of its own, and escapes names", () => {
    const svg = Plot.bars("a < b", [
      { name: "small", bars: [{ name: "x", value: 1 }, { name: "y", value: 2 }] },
      { name: "large", bars: [{ name: "x", value: 1000 }, { name: "y", value: 2000 }] }
    ])
    const widths = [...svg.matchAll(/<rect x="250" y="\d+" width="([\d.]+)" height="14"/g)].map(([, width]) =>
      Number(width)
    )
    assert.deepStrictEqual(widths, [210, 420, 210, 420])
    assert.include(svg, "<title>a &lt; b</title>")
    assert.include(svg, ">2,000</text>")
  })
})
