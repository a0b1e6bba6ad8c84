import { assert, describe, it } from "@effect/vitest"
import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { parse } from "yaml"
import * as HelmChart from "./HelmChart.ts"
import * as PrometheusRules from "./PrometheusRules.ts"

const rules = join(HelmChart.directory, "alerts/spegel.yaml")
const document = join(HelmChart.directory, "../../docs/metrics.md")

const labels = (pod: string, others = "") => `{namespace="n",pod="${pod}"${others === "" ? "" : `,${others}`}}`

interface Case {
  readonly alert: string
  /** The event, and whom the alert names. */
  readonly fires: PrometheusRules.Series
  readonly named: Readonly<Record<string, string>>
  readonly severity?: "info"
  /** What is like it and is no event. */
  readonly silent: PrometheusRules.Series
}

const peers = (pod: string) => `spegel_router_peers${labels(pod, `router="libp2p"`)}`
const requests = (pod: string, cache: string) =>
  `spegel_mirror_requests_total${labels(pod, `cache="${cache}",registry="r"`)}`
const failures = (reason: string) => `spegel_mirror_peer_failures_total${labels("a", `reason="${reason}"`)}`
const failing = (pod: string) => `spegel_background_failing${labels(pod, `task="advertise"`)}`
const fault = (pod: string, reason: string) => `spegel_containerd_fault${labels(pod, `reason="${reason}"`)}`

const cases: ReadonlyArray<Case> = [
  {
    alert: "SpegelAlone",
    fires: { [peers("a")]: "0x120", [peers("b")]: "2x120" },
    named: { pod: "a", router: "libp2p" },
    // The only node of a cluster.
    silent: { [peers("a")]: "0x120" }
  },
  {
    alert: "SpegelOnlyMisses",
    fires: { [requests("a", "miss")]: "0+3x120", [requests("a", "hit")]: "5x120" },
    named: { pod: "" },
    severity: "info",
    silent: { [requests("a", "miss")]: "0+3x120", [requests("a", "hit")]: "0x120", [requests("b", "hit")]: "0+1x120" }
  },
  {
    alert: "SpegelPeersRefuse",
    fires: { [failures("PeerRefused")]: "0+10x120" },
    named: { pod: "a" },
    silent: { [failures("PeerRefused")]: "0+1x120", [failures("PeerStalled")]: "0+10x120" }
  },
  {
    alert: "SpegelWrongBytes",
    fires: { [`spegel_mirror_corruptions_total${labels("a")}`]: "0x110 1x10" },
    named: { pod: "a" },
    silent: { [`spegel_mirror_corruptions_total${labels("a")}`]: "7x120" }
  },
  {
    alert: "SpegelDamagedBlobs",
    fires: { [`spegel_content_damaged_total${labels("a")}`]: "0x110 1x10" },
    named: { pod: "a" },
    silent: { [`spegel_content_damaged_total${labels("a")}`]: "7x120" }
  },
  {
    alert: "SpegelLogLinesDropped",
    fires: { [`spegel_log_lines_dropped_total${labels("a")}`]: "0x110 9x10" },
    named: { pod: "a" },
    silent: { [`spegel_log_lines_dropped_total${labels("a")}`]: "9x120" }
  },
  {
    alert: "SpegelTaskFailing",
    fires: { [failing("a")]: "0x110 1x10", [failing("b")]: "0x120" },
    named: { pod: "a", task: "advertise" },
    silent: { [failing("a")]: "0x100 1x2 0x20" }
  },
  {
    alert: "SpegelContainerdFault",
    fires: { [fault("a", "NotAsked")]: "0x110 1x10", [fault("b", "NotAsked")]: "0x120" },
    named: { pod: "a", reason: "NotAsked" },
    // It was mended.
    silent: { [fault("a", "NotAsked")]: "0x100 1x2 0x20", [fault("a", "LayersDiscarded")]: "0x120" }
  }
]

const missing = HelmChart.missingProgram("promtool", "Debian's prometheus")

describe.skipIf(missing !== undefined)(`alerts${missing === undefined ? "" : ` (skipped: ${missing})`}`, () => {
  const promtool = (alert: string, series: PrometheusRules.Series, expected: ReadonlyArray<object>) =>
    PrometheusRules.test(rules, { alert, series, expected })

  for (const { alert, fires, named, severity = "warning", silent } of cases) {
    it(`${alert} fires at its event, and names who has it`, async () => {
      // The annotations are those of the rule; promtool prints what it got, with them.
      const { stderr, stdout } = await promtool(alert, fires, [])
      const got = /got:\[\s*([^]*)\]/.exec(stdout + stderr)?.[1] ?? ""
      for (const [label, value] of Object.entries({ ...named, namespace: "n", severity })) {
        if (value === "") assert.notInclude(got, `${label}="`, got)
        else assert.include(got, `${label}="${value}"`, stdout + stderr)
      }
      assert.lengthOf(got.match(/Labels:/g) ?? [], 1, got)
      assert.notInclude(got, "<no value>")
    })

    it(`${alert} is silent where all is well`, async () => {
      const { code, stderr, stdout } = await promtool(alert, silent, [])
      assert.strictEqual(code, 0, stdout + stderr)
    })
  }

  it("are all tried, and each is told of", async () => {
    const { groups } = parse(await readFile(rules, "utf8")) as {
      readonly groups: ReadonlyArray<{ readonly rules: ReadonlyArray<{ readonly alert: string }> }>
    }
    const alerts = groups.flatMap(({ rules }) => rules.map(({ alert }) => alert))
    assert.sameMembers(alerts, cases.map(({ alert }) => alert))
    const [, ...rows] =
      /^\| alert .*$(?:\n^\|.*$)+/m.exec(await readFile(document, "utf8"))?.[0].split("\n").slice(1) ?? []
    assert.sameMembers(rows.map((row) => row.split("`")[1] ?? row), alerts, "docs/metrics.md tells what to do")
    const { code, stderr } = await HelmChart.run("promtool", ["check", "rules", rules])
    assert.strictEqual(code, 0, stderr)
  })
})
