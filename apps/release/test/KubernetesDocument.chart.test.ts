/** What docs/kubernetes.md tells operators to copy: the chart takes its values, and containerd its settings. */
import { assert, beforeAll, describe, it } from "@effect/vitest"
import * as ConfigFindings from "@spegel-ts/containerd/ConfigFindings"
import * as ContainerdConfig from "@spegel-ts/containerd/ContainerdConfig"
import { Result } from "effect"
import { readFile } from "node:fs/promises"
import { fileURLToPath } from "node:url"
import { parse } from "yaml"
import * as HelmChart from "./HelmChart.ts"

const document = await readFile(fileURLToPath(new URL("../../../docs/kubernetes.md", import.meta.url)), "utf8")

const blocks = (language: string): ReadonlyArray<string> =>
  [...document.matchAll(new RegExp(`^\`\`\`${language}\n([^]*?)^\`\`\``, "gm"))].map(([, text]) => text ?? "")

/** The text from a heading to the next. */
const section = (heading: string): string => {
  const [, text] = new RegExp(`^#+ ${heading}\n([^]*?)(?=^##)`, "m").exec(document) ?? []
  return text ?? assert.fail(`no section ${heading}`)
}

interface Block {
  readonly kind?: string
  readonly spec?: { readonly containerd: { readonly config: string } }
  readonly containerdConfigPatches?: ReadonlyArray<string>
}

const yaml = blocks("yaml").map((text) => parse(text) as Block & HelmChart.Values)
const values: ReadonlyArray<HelmChart.Values> = yaml.filter(({ kind, machine }) =>
  kind === undefined && machine === undefined
)
const ofKind = (kind: string): Block => yaml.find((block) => block.kind === kind) ?? assert.fail(`no block of ${kind}`)

const configPath = "/etc/containerd/certs.d"

/** What keeps containerd of a version from asking the mirror, with these settings. */
const findings = (text: string, containerd: string) =>
  ConfigFindings.find(Result.getOrThrow(ContainerdConfig.parse(text)), { containerd, configPath })

const missing = HelmChart.missingPrerequisite()

describe("docs/kubernetes.md", () => {
  it("tells of each platform, and links what it says of it", () => {
    const table = section("Platforms")
    for (
      const name of ["kubeadm", "kind", "k3s", "RKE2", "EKS", "AKS", "GKE", "Talos", "Bottlerocket", "OpenShift"]
    ) {
      const [, anchor] = new RegExp(`^\\| \\[${name}\\]\\(#([a-z0-9-]+)\\) `, "m").exec(table) ?? []
      const heading = document.match(/^### .*$/gm)?.find((line) =>
        line.slice(4).toLowerCase().replaceAll(" ", "-") === anchor
      )
      assert.match(section(heading?.slice(4) ?? assert.fail(name)), /\]\(https:/, name)
    }
  })

  it("has settings with which containerd of each version reads hosts.toml", () => {
    const toml = (version: number) =>
      blocks("toml").find((text) => text.includes(`version = ${version}\n`)) ?? assert.fail(`no version ${version}`)
    const patch = ofKind("Cluster").containerdConfigPatches?.join("\n") ?? ""
    const nodeadm = ofKind("NodeConfig").spec?.containerd.config ?? ""
    for (
      const [text, versions] of [
        [toml(3), ["2.0.5", "2.1.9", "2.3.4"]],
        [toml(2), ["1.6.20~ds1", "1.7.24"]],
        [`version = 2\n${patch}`, ["1.7.24", "2.1.9", "2.3.4"]],
        [`version = 3\n${nodeadm}`, ["2.1.9", "2.3.4"]]
      ] as const
    ) {
      assert.include(text, "discard_unpacked_layers = false")
      for (const version of versions) assert.deepStrictEqual(findings(text, version), [], `${version}: ${text}`)
    }
    // The check is able to find something.
    assert.lengthOf(findings(toml(3).replace(configPath, `${configPath}:/etc/docker/certs.d`), "2.1.9"), 1)
  })

  describe.skipIf(missing !== undefined)(`on the chart${missing === undefined ? "" : ` (skipped: ${missing})`}`, () => {
    beforeAll(() => HelmChart.build(), 900_000)

    it("has values that the chart takes", async () => {
      assert.isAtLeast(values.length, 4)
      for (const some of values) {
        const { code, stderr } = await HelmChart.command("template", { values: some })
        assert.strictEqual(code, 0, stderr)
      }
    })
  })
})
