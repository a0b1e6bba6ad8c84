/**
 * Logs, one line each: JSON with `time`, `level` and `msg`, then the annotations, then `error`; or, on a terminal, text for
 * people (`TerminalLine`).
 */
import { Cause, Layer, Logger, type LogLevel, References } from "effect"

/** The parts of a log line. */
export interface LogLine {
  readonly time: Date
  /** In capitals, such as `INFO`. */
  readonly level: string
  readonly message: string
  /** The annotations. */
  readonly fields: Readonly<Record<string, unknown>>
  /** The cause, with stacks. */
  readonly error: string | undefined
}

/** Renders a line, its newline included. Never throws. */
export type Format = (line: LogLine) => string

/** Any value as text: an error's message, else the result of `String`. Never throws. */
export const textOf = (value: unknown): string => {
  try {
    return value instanceof Error ? value.message : String(value)
  } catch {
    return "unprintable"
  }
}

const lineOf: Logger.Logger<unknown, LogLine> = Logger.make(({ cause, date, fiber, logLevel, message }) => ({
  time: date,
  level: logLevel.toUpperCase(),
  message: (Array.isArray(message) ? message : [message]).map(textOf).join(" "),
  fields: fiber.getRef(References.CurrentLogAnnotations),
  error: cause.reasons.length === 0 ? undefined : Cause.pretty(cause)
}))

const ownFields = new Set(["time", "level", "msg", "error"])

/** An object as JSON. If JSON cannot express a value (a cycle, a bigint), every value becomes text. */
const stringify = (record: Readonly<Record<string, unknown>>): string => {
  try {
    return JSON.stringify(record)
  } catch {
    return JSON.stringify(Object.fromEntries(Object.entries(record).map(([name, value]) => [name, textOf(value)])))
  }
}

/** One JSON object. An annotation with the name of a field of our own becomes `fields.<name>`. */
export const json: Format = ({ error, fields, level, message, time }) => {
  const named = Object.entries(fields).map(([name, value]) => [ownFields.has(name) ? `fields.${name}` : name, value])
  return `${
    stringify({
      time: time.toISOString(),
      level,
      msg: message,
      ...Object.fromEntries(named),
      ...(error === undefined ? {} : { error })
    })
  }\n`
}

/** Replaces the program's loggers: lines of `minimumLevel` and above are rendered by `format` and passed to `write`. */
export const layer = (options: {
  readonly minimumLevel: LogLevel.LogLevel
  readonly format: Format
  readonly write: (line: string) => void
}): Layer.Layer<never> =>
  Layer.merge(
    Logger.layer([Logger.map(lineOf, (line) => options.write(options.format(line)))]),
    Layer.succeed(References.MinimumLogLevel, options.minimumLevel)
  )
