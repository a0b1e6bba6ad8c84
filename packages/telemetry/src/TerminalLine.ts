/** Log lines for people at a terminal. */
import { type Format, type LogLine, textOf } from "./Logging.ts"

const colours = new Map([["FATAL", 31], ["ERROR", 31], ["WARN", 33], ["INFO", 32], ["DEBUG", 36], ["TRACE", 36]])

/** One line without control characters: a name from the network must not move the cursor. */
const printable = (text: string): string =>
  text.replaceAll(/\s+/g, " ").replaceAll(
    /\p{Cc}/gu,
    (character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, "0")}`
  )

const valueOf = (value: unknown): string => {
  const text = printable(textOf(value))
  return /^[^\s"=]+$/.test(text) ? text : JSON.stringify(text)
}

/** Time of day, level, message, annotations. */
const format = ({ error, fields, level, message, time }: LogLine, paint: (code: number, text: string) => string) =>
  [
    paint(2, time.toTimeString().slice(0, 8)),
    paint(colours.get(level) ?? 0, level.padEnd(5)),
    printable(message),
    ...Object.entries(fields).map(([name, value]) => paint(2, `${printable(name)}=`) + valueOf(value)),
    ...(error === undefined ? [] : [paint(31, printable(error))])
  ].join(" ")

/** Coloured, unless the environment has `NO_COLOR` (https://no-color.org) or its `TERM` is `dumb`. */
export const terminal = (environment: Readonly<Record<string, string | undefined>>): Format => {
  const plain = (environment["NO_COLOR"] ?? "") !== "" || environment["TERM"] === "dumb"
  const paint = (code: number, text: string) => plain ? text : `\u001b[${code}m${text}\u001b[0m`
  return (line) => `${format(line, paint)}\n`
}
