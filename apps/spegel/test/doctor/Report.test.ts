import { assert, describe, it } from "@effect/vitest"
import { about, type Check, ok, problem, resultOf, skipped, warning } from "@spegel-ts/spegel/doctor/Check"
import * as Report from "@spegel-ts/spegel/doctor/Report"

const checks: ReadonlyArray<Check> = [
  ok("socket", "it answers"),
  about("docker.io", problem("hosts-toml", "a\u001b[2Jb", "run spegel configuration")),
  skipped("canary", "no CRI plugin")
]

describe("Report", () => {
  it("is proved only by a pull, and by no problem beside it", () => {
    const canary = ok("canary", "pulled")
    assert.strictEqual(resultOf([canary]), "proved")
    assert.strictEqual(resultOf([canary, warning("peers", "none")]), "proved")
    assert.strictEqual(resultOf([ok("socket", ""), skipped("canary", "")]), "not proved")
    assert.strictEqual(resultOf([canary, problem("layers", "")]), "problem")
  })

  it("shows a person a line for each check, and what to do", () => {
    const text = Report.text({ containerd: "2.1.9", checks }, { colours: false })
    assert.deepStrictEqual(text.split("\n"), [
      "ok      socket: it answers",
      "problem hosts-toml docker.io: a [2Jb",
      "        -> run spegel configuration",
      "skipped canary: no CRI plugin",
      "problem: see above (1 problem, 0 warnings, 1 skipped)"
    ])
    assert.include(Report.text({ containerd: "2.1.9", checks }, { colours: true }), "\u001b[31mproblem\u001b[0m")
  })

  it("gives programs all of it", () => {
    const { checks: printed, containerd, result } = JSON.parse(Report.json({ containerd: undefined, checks }))
    assert.deepStrictEqual([containerd, result, printed], [null, "problem", checks])
  })
})
