/**
 * The shell blocks of the documents. A comment before each says what becomes of it:
 * `<!-- run -->`: this test runs it with bash in an empty directory, `spegel` being the bundle;
 * `<!-- command: NAME -->`: `.ci/run` runs it as a newcomer would type it; for blocks of README.md;
 * `<!-- not run: REASON -->`: nobody does, because it needs what a test does not have.
 */
import { assert, describe, it } from "@effect/vitest"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Effect } from "effect"
import { mkdir, writeFile } from "node:fs/promises"
import { join } from "node:path"
import * as HelmChart from "../HelmChart.ts"
import * as Pages from "./Pages.ts"

const bundle = join(Pages.repository, "apps/spegel/bundle/main.js")

const blocks = Pages.all.flatMap(Pages.blocks)
const shell = blocks.filter(({ language }) => language === "sh")
const where = ({ line, page }: Pages.Block) => `${page}:${line}`

/** What needs a cluster, a daemon, the network or the machine's own directories, and functions of an earlier block. */
const outOfReach =
  /\b(?:kubectl|helm|npm|npx|node|systemctl|skopeo|crane|crictl|ctr|containerd|apiclient|put|spegel registry)\b|\/usr\/lib\//

const runBlock = Effect.fnUntraced(function*(text: string) {
  const directory = yield* temporary
  const [home, programs, work] = [join(directory, "home"), join(directory, "bin"), join(directory, "work")] as const
  return yield* Effect.promise(async () => {
    await Promise.all([home, programs, work].map((path) => mkdir(path)))
    await writeFile(join(programs, "spegel"), `#!/bin/sh\nexec '${process.execPath}' '${bundle}' "$@"\n`, {
      mode: 0o755
    })
    return await HelmChart.run("bash", ["-euo", "pipefail"], {
      cwd: work,
      input: text,
      env: { HOME: home, PATH: `${programs}:/usr/bin:/bin` }
    })
  })
})

describe("shell blocks", () => {
  it("are recognised: each block says its language", () => {
    assert.deepStrictEqual(blocks.filter(({ language }) => language === "").map(where), [])
  })

  it("say whether they are run, and those that can be are", () => {
    assert.isAbove(shell.length, 30)
    const silent = shell.filter(({ marker }) => !/^(?:run|command: [a-z]+|not run: \S.*)$/.test(marker))
    assert.deepStrictEqual(silent.map(where), [])
    const idle = shell.filter(({ marker, text }) => marker.startsWith("not run: ") && !outOfReach.test(text))
    assert.deepStrictEqual(idle.map(where), [])
  })

  it("are run by .ci/run where they have a name", () => {
    const script = Pages.read(".ci/run")
    for (const block of shell) {
      const [, name] = /^command: (.*)$/.exec(block.marker) ?? []
      if (name === undefined) continue
      assert.strictEqual(block.page, "README.md")
      assert.match(script, new RegExp(`\\breadme_command ${name}\\b`))
    }
  })

  const runnable = shell.filter(({ marker }) => marker === "run")
  it("are run here, some of them", () => assert.isAtLeast(runnable.length, 6))
  for (const block of runnable) {
    it.live(`${where(block)} does what it says`, () =>
      Effect.gen(function*() {
        const { code, stderr, stdout } = yield* runBlock(block.text)
        assert.strictEqual(code, 0, `${stdout}\n${stderr}`)
        // A document shows a comment that begins with "prints" behind what is printed.
        for (const [, expected = ""] of block.text.matchAll(/# prints (.+)$/gm)) assert.include(stdout, expected)
      }))
  }
})
