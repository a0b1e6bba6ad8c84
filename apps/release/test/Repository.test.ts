import { assert, describe, it } from "@effect/vitest"
import { existsSync, globSync } from "node:fs"
import { dirname, join } from "node:path"
import * as Pages from "./documents/Pages.ts"

const { all: pages, read, repository } = Pages
const withoutCode = (text: string) => text.replaceAll(/^```[^]*?^```/gm, "")

/** The anchors that GitHub gives the headings of a page. */
const anchorsOf = (text: string) =>
  new Set(
    [...withoutCode(text).matchAll(/^#+ (.+)$/gm)].map(([, heading = ""]) =>
      heading.replaceAll(/\[([^\]]+)\]\([^)]+\)/g, "$1").toLowerCase().replaceAll(/[^\w\- ]/g, "").replaceAll(" ", "-")
    )
  )

describe("documentation", () => {
  it("has its main pages", () => {
    for (const page of ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "docs/README.md"]) {
      assert.include(pages, page)
    }
  })

  for (const page of pages) {
    it(`${page} links to what is there`, () => {
      const dead: Array<string> = []
      for (const [, target = ""] of withoutCode(read(page)).matchAll(/\]\(([^)\s]+)\)/g)) {
        if (/^[a-z]+:/.test(target)) continue
        const [path = "", anchor] = target.split("#")
        const file = path === "" ? page : join(dirname(page), path)
        const isThere = existsSync(join(repository, file)) &&
          (anchor === undefined || anchorsOf(read(file)).has(anchor))
        if (!isThere) dead.push(target)
      }
      assert.deepStrictEqual(dead, [])
    })

    it(`${page} names files of the repository that are there`, () => {
      const named = [...read(page).matchAll(/`((?:packages|apps|examples|charts|docs|systemd)\/[\w./-]+)`/g)]
        .map(([, path = ""]) => path)
      assert.deepStrictEqual(named.filter((path) => !existsSync(join(repository, path))), [])
    })
  }
})

describe("folders", () => {
  it("have at most 15 files side by side", () => {
    const files = globSync("{packages,apps,examples}/*/{src,test}/**/*.ts", {
      cwd: repository,
      exclude: (path) => /(?:^|\/)(?:node_modules|dist|gen)(?:\/|$)/.test(path)
    })
    assert.isAbove(files.length, 100)
    const folders = Map.groupBy(files, dirname)
    assert.deepStrictEqual([...folders].filter(([, inside]) => inside.length > 15).map(([folder]) => folder), [])
  })
})
