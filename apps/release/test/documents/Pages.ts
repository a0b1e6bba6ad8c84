/** The repository's documents, and the parts of them that tests check. */
import { globSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

export const repository = fileURLToPath(new URL("../../../..", import.meta.url))

/** All of them, by their paths in the repository. */
export const all = globSync(["*.md", ".github/*.md", "{docs,packages,apps,examples,charts}/**/*.md"], {
  cwd: repository,
  exclude: (path) => /(?:^|\/)(?:node_modules|dist|bundle)(?:\/|$)/.test(path)
})

/** Those that users read: without the pages of single packages and examples, and without the history. */
export const forUsers = all.filter((page) => /^(?:README|SECURITY)\.md$|^docs\/|^charts\//.test(page))

export const read = (page: string): string => readFileSync(join(repository, page), "utf8")

/** A fenced block of a page. */
export interface Block {
  readonly page: string
  /** The line of its first fence, from 1. */
  readonly line: number
  readonly language: string
  /** Its lines, without the indentation of its fence. */
  readonly text: string
  /** What the comment before it says; empty where there is none. */
  readonly marker: string
}

/** The last line before a block that is not empty. */
const lineBefore = (lines: ReadonlyArray<string>) => lines.findLast((line) => line.trim() !== "") ?? ""

/** The fenced blocks of a page, in their order. */
export const blocks = (page: string): ReadonlyArray<Block> => {
  const lines = read(page).split("\n")
  const found: Array<Block> = []
  for (let start = 0; start < lines.length; start++) {
    const [, indentation, language = ""] = /^( *)```(\S*)$/.exec(lines[start] ?? "") ?? []
    if (indentation === undefined) continue
    const end = lines.findIndex((line, index) => index > start && line === `${indentation}\`\`\``)
    found.push({
      page,
      line: start + 1,
      language,
      text: lines.slice(start + 1, end).map((line) => line.slice(indentation.length)).join("\n"),
      marker: /^ *<!-- (.*) -->$/.exec(lineBefore(lines.slice(0, start)))?.[1] ?? ""
    })
    start = end
  }
  return found
}

/** What stands between single backticks, outside fenced blocks. */
export const codeSpans = (page: string): ReadonlyArray<string> =>
  [...read(page).replaceAll(/^ *```[^]*?^ *```/gm, "").matchAll(/`([^`\n]+)`/g)].map(([, span = ""]) => span)
