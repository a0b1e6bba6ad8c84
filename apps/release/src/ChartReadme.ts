/** The table of values in the chart's README, made of `values.yaml`: a comment that begins with `--` tells of the key below it. */
import { Data, Effect } from "effect"
import { readFile, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { isMap, parseDocument, type YAMLMap } from "yaml"

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

/** The described keys below `map`, in the order of the file. */
const below = (map: YAMLMap, path: ReadonlyArray<string>): ReadonlyArray<Value> =>
  map.items.flatMap((pair, index) => {
    const key = pair.key as { readonly value: string; readonly commentBefore?: string }
    // The comment before a map's first key belongs to the map.
    const comment = (index === 0 ? map.commentBefore : undefined) ?? key.commentBefore ?? ""
    const at = [...path, key.value]
    const lines = comment.split("\n").map((line) => line.trim())
    const start = lines.findLastIndex((line) => line.startsWith("-- "))
    const value = pair.value as { readonly toJSON: () => unknown } | null
    if (start >= 0) {
      return [{
        key: at.join("."),
        fallback: JSON.stringify(value?.toJSON() ?? null),
        description: lines.slice(start).join(" ").slice(3)
      }]
    }
    return isMap(value) ? below(value, at) : []
  })

/** What `values.yaml` tells of its keys. */
export const read = (yaml: string): ReadonlyArray<Value> => {
  const { contents } = parseDocument(yaml)
  return isMap(contents) ? below(contents as YAMLMap, []) : []
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
