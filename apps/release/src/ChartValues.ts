/** The chart's values as a table for its README: a comment in `values.yaml` that begins with `--` describes the key below it. */
import { isNode, parseDocument } from "yaml"
import * as GeneratedTable from "./GeneratedTable.ts"

export interface Value {
  readonly key: string
  /** The default, as JSON. */
  readonly fallback: string
  readonly description: string
}

/** The keys that `values.yaml` describes, in the order of the file. */
export const read = (yaml: string): ReadonlyArray<Value> => {
  const document = parseDocument(yaml)
  const values: Array<Value> = []
  /** The keys that enclose the line, and how far each is indented. */
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

/** The table of `values.yaml`. */
export const render = (yaml: string): string =>
  GeneratedTable.table(
    ["key", "default", "meaning"],
    read(yaml).map(({ description, fallback, key }) => [`\`${key}\``, `\`${fallback}\``, description])
  )
