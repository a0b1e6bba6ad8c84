/** What the guides tell operators to copy: the chart takes its values, and Prometheus its rules. */
import { assert, beforeAll, describe, it } from "@effect/vitest"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Effect } from "effect"
import { writeFile } from "node:fs/promises"
import { join } from "node:path"
import { parse } from "yaml"
import * as HelmChart from "../HelmChart.ts"
import * as PrometheusRules from "../PrometheusRules.ts"
import * as Pages from "./Pages.ts"

const blocks = Pages.all.filter((page) => page.startsWith("docs/guides/")).flatMap(Pages.blocks)
  .filter(({ language }) => language === "yaml")
  .map(({ line, page, text }) => ({ title: `${page}:${line}`, text, content: parse(text) as HelmChart.Values }))
const isRules = ({ content }: { readonly content: HelmChart.Values }) => "groups" in content
const rules = blocks.filter(isRules).map(({ text }) => text).join("\n")

const requests = (cache: string) => `spegel_mirror_requests_total{namespace="n",pod="a",registry="r",cache="${cache}"}`
const waits = (end: string) => `spegel_mirror_download_waits_total{namespace="n",pod="a",end="${end}"}`
const plane = (pod: string, name: string) => `spegel_data_plane{namespace="n",pod="${pod}",plane="${name}"}`
const unproved = `spegel_peer_auth_members{namespace="n",pod="a",router="libp2p",proved="false"}`
const refused = `spegel_bodies_refused_total{namespace="n",pod="a"}`

/** Each alert with series at which it fires after three hours, and with such at which it does not. */
const alerts: Readonly<Record<string, readonly [fires: PrometheusRules.Series, silent: PrometheusRules.Series]>> = {
  SpegelFewHits: [
    { [requests("hit")]: "0+1x180", [requests("miss")]: "0+30x180" },
    { [requests("hit")]: "0+30x180", [requests("miss")]: "0+1x180" }
  ],
  SpegelPortable: [
    { [plane("a", "portable")]: "1x180", [plane("b", "zero-copy")]: "1x180" },
    { [plane("a", "portable")]: "1x180", [plane("b", "zero-copy")]: "0x180" }
  ],
  SpegelBodiesRefused: [{ [refused]: "0+5x180" }, { [refused]: "0+1x180" }],
  SpegelWaitsInVain: [
    { [waits("given_up")]: "0+5x180", [waits("served")]: "0+1x180" },
    { [waits("given_up")]: "0+1x180", [waits("served")]: "0+5x180" }
  ],
  SpegelUnprovedMembers: [{ [unproved]: "1x180" }, { [unproved]: "0x180" }]
}

const noHelm = HelmChart.missingPrerequisite()
const noPromtool = HelmChart.missingProgram("promtool", "Debian's prometheus")
const note = (missing: string | undefined) => missing === undefined ? "" : ` (skipped: ${missing})`

describe("the guides", () => {
  it("have values and rules to copy, and each alert is tried", () => {
    assert.isAbove(blocks.filter((block) => !isRules(block)).length, 5)
    const names = [...rules.matchAll(/^ +- alert: (\w+)$/gm)].map(([, name = ""]) => name)
    assert.sameMembers(names, Object.keys(alerts))
  })

  describe.skipIf(noHelm !== undefined)(`on the chart${note(noHelm)}`, () => {
    beforeAll(() => HelmChart.build(), 900_000)

    for (const { content, title } of blocks.filter((block) => !isRules(block))) {
      it(`${title} has values that the chart takes`, async () => {
        const { code, stderr } = await HelmChart.command("template", { values: content })
        assert.strictEqual(code, 0, stderr)
      })
    }
  })

  for (const [alert, [fires, silent]] of Object.entries(alerts)) {
    it.live.skipIf(noPromtool !== undefined)(
      `${alert} fires at its event alone${note(noPromtool)}`,
      () =>
        Effect.gen(function*() {
          const file = join(yield* temporary, "rules.yaml")
          const { loud, quiet } = yield* Effect.promise(async () => {
            await writeFile(file, rules)
            const test = (series: PrometheusRules.Series) =>
              PrometheusRules.test(file, { alert, series, expected: [], hours: 3 })
            return { loud: await test(fires), quiet: await test(silent) }
          })
          const got = /got:\[\s*([^]*)\]/.exec(loud.stdout + loud.stderr)?.[1] ?? ""
          assert.include(got, `alertname="${alert}"`, loud.stdout + loud.stderr)
          assert.notInclude(got, "<no value>")
          assert.strictEqual(quiet.code, 0, quiet.stdout + quiet.stderr)
        })
    )
  }
})
