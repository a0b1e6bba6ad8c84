/** The table of values in the chart's README, made of `values.yaml`: a comment that begins with `--` tells of the key below it. */
import { Data, Effect } from "effect"
import { readFile, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { isNode, parseDocument } from "yaml"

/** The README does not say what `values.yaml` says, or cannot be made to. */
export class ReadmeOutdated extends Data.TaggedError("ReadmeOutdated")<{
  readonly path: string
  readonly reason: string
}> {
  override get message() {
    return `${this.path}: ${this.reason}`
  }
}

export interface Value {
  readonly key: string
  readonly fallback: string
  readonly description: string
}

const begin = "<!-- values: npm run chart:readme -->"
const end = "<!-- end of values -->"

/** What `values.yaml` tells of its keys, in the order of the file. */
export const read = (yaml: string): ReadonlyArray<Value> => {
  const document = parseDocument(yaml)
  const values: Array<Value> = []
  /** Keys around the line, and how far each is indented. */
  let around: ReadonlyArray<{ readonly indent: number; readonly key: string }> = []
  let comment: ReadonlyArray<string> = []
  for (const line of yaml.split("\n")) {
    const [, text] = /^\s*# ?(.*)$/.exec(line) ?? []
    const [, { length: indent } = "", key] = /^( *)([\w.-]+):/.exec(line) ?? []
    if (text !== undefined) {
      comment = text.startsWith("-- ") ? [text.slice(3)] : comment.length === 0 ? [] : [...comment, text]
      continue
    }
    if (key !== undefined) {
      around = [...around.filter((outer) => outer.indent < indent), { indent, key }]
      const path = around.map(({ key }) => key)
      if (comment.length > 0) {
        const value = document.getIn(path)
        const fallback = JSON.stringify(isNode(value) ? value.toJSON() : value ?? null)
        values.push({ key: path.join("."), fallback, description: comment.join(" ") })
      }
    }
    comment = []
  }
  return values
}

const table = (values: ReadonlyArray<Value>): string => {
  const cell = (text: string) => text.replaceAll("|", String.raw`\|`)
  const rows = [
    ["key", "default", "meaning"],
    ...values.map(({ description, fallback, key }) => [`\`${key}\``, `\`${cell(fallback)}\``, cell(description)])
  ]
  const widths = [0, 1, 2].map((column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)))
  const line = (row: ReadonlyArray<string>) =>
    `| ${row.map((text, column) => text.padEnd(widths[column] ?? 0)).join(" | ")} |`
  const rule = `| ${widths.map((width) => "-".repeat(width)).join(" | ")} |`
  return [line(rows[0] ?? []), rule, ...rows.slice(1).map(line)].join("\n")
}

/** Puts the table in its place in the README; with `check`, fails where it is not there already. */
export const update = Effect.fn("ChartReadme.update")(
  function*({ check, directory }: { readonly directory: string; readonly check: boolean }) {
    const path = join(directory, "README.md")
    const outdated = (reason: string) => new ReadmeOutdated({ path, reason })
    const tryFile = <A>(run: () => Promise<A>) =>
      Effect.tryPromise({ try: run, catch: (cause) => outdated(String(cause)) })
    const readme = yield* tryFile(() => readFile(path, "utf8"))
    const values = yield* tryFile(() => readFile(join(directory, "values.yaml"), "utf8"))
    const [before, rest] = readme.split(begin)
    const after = rest?.split(end)[1]
    if (before === undefined || after === undefined) return yield* outdated(`lacks the lines ${begin} and ${end}`)
    const updated = `${before}${begin}\n\n${table(read(values))}\n\n${end}${after}`
    if (updated === readme) return
    if (check) return yield* outdated("is not what values.yaml says; run npm run chart:readme")
    yield* tryFile(() => writeFile(path, updated))
  }
)
