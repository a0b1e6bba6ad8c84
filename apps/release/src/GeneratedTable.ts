/** Tables in documents that a program writes, each document having one place for them between two markers. */
import { Data, Effect } from "effect"
import { readFile, writeFile } from "node:fs/promises"

/** A document lacks the markers, or its generated part is not up to date; `npm run docs` writes it. */
export class DocumentOutdated extends Data.TaggedError("DocumentOutdated")<{
  readonly path: string
  readonly reason: string
}> {
  override get message() {
    return `${this.path}: ${this.reason}`
  }
}

const begin = "<!-- generated: npm run docs -->"
const end = "<!-- end of generated -->"

const cell = (text: string) => text.replaceAll("|", String.raw`\|`)

/** A table in Markdown, with columns that line up in the source as well. */
export const table = (head: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<string>>): string => {
  const cells = [head, ...rows].map((row) => row.map(cell))
  const widths = head.map((_, column) => Math.max(...cells.map((row) => row[column]?.length ?? 0)))
  const line = (row: ReadonlyArray<string>) =>
    `| ${row.map((text, column) => text.padEnd(widths[column] ?? 0)).join(" | ")} |`
  const rule = line(widths.map((width) => "-".repeat(width)))
  return [line(cells[0] ?? []), rule, ...cells.slice(1).map(line)].join("\n")
}

export interface UpdateOptions {
  readonly path: string
  /** The generated part. */
  readonly text: string
  /** Only check that the document has it already. */
  readonly check: boolean
}

/** Writes the generated part of a document; with `check`, fails unless it is there already. */
export const update = Effect.fn("GeneratedTable.update")(function*({ check, path, text }: UpdateOptions) {
  const outdated = (reason: string) => new DocumentOutdated({ path, reason })
  const tryFile = <A>(run: () => Promise<A>) =>
    Effect.tryPromise({ try: run, catch: (cause) => outdated(String(cause)) })
  const document = yield* tryFile(() => readFile(path, "utf8"))
  const [before, rest] = document.split(begin)
  const after = rest?.split(end)[1]
  if (before === undefined || after === undefined) return yield* outdated(`lacks the lines ${begin} and ${end}`)
  const updated = `${before}${begin}\n\n${text}\n\n${end}${after}`
  if (updated === document) return
  if (check) return yield* outdated("is out of date; run npm run docs")
  yield* tryFile(() => writeFile(path, updated))
})
