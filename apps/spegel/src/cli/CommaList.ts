/**
 * Lists in an environment variable, as Go Spegel reads them (`encoding/csv`): commas between values, double quotes around
 * a value that has commas, two quotes for a quote in it. White space around values is ignored, and a line break separates values as
 * a comma does.
 *
 * The commas of a repetition in a regular expression, such as `{1,3}`, need no quotes: Go would read two expressions there, which
 * match nothing, because names of images have no braces.
 */
import { Option } from "effect"

const quoted = /\s*"((?:[^"]|"")*)"\s*(?:[,\n]|$)/y
const plain = /((?:\{\d*,\d*\}|[^,\n])*)(?:[,\n]|$)/y

/** The values without empty ones; none if the quotes do not match. */
export const parse = (text: string): Option.Option<ReadonlyArray<string>> => {
  const values: Array<string> = []
  let position = 0
  const next = (form: RegExp) => {
    form.lastIndex = position
    const match = form.exec(text)
    if (match !== null) position = form.lastIndex
    return match?.[1]
  }
  while (position < text.length) {
    const inQuotes = next(quoted)?.replaceAll(`""`, `"`)
    const value = inQuotes ?? next(plain)?.trim() ?? ""
    if (inQuotes === undefined && value.includes(`"`)) return Option.none()
    if (value !== "") values.push(value)
  }
  return Option.some(values)
}
