/** Logs as one JSON object a line on stderr: `time`, `level`, `msg`, then the annotations, then `error`. */
import { Cause, Layer, Logger, type LogLevel, References } from "effect"

const text = (message: unknown): string => message instanceof Error ? message.message : String(message)

/** A log line without its end. Redacted values print as `<redacted>`. */
export const jsonLine: Logger.Logger<unknown, string> = Logger.make(({ cause, date, fiber, logLevel, message }) => {
  const parts = Array.isArray(message) ? message : [message]
  return JSON.stringify({
    time: date.toISOString(),
    level: logLevel.toUpperCase(),
    msg: parts.map(text).join(" "),
    ...fiber.getRef(References.CurrentLogAnnotations),
    ...(cause.reasons.length === 0 ? {} : { error: Cause.pretty(cause) })
  })
})

/** Logs of `minimumLevel` and above, each line handed to `write` with its end. */
export const layer = (options: {
  readonly minimumLevel: LogLevel.LogLevel
  readonly write: (line: string) => void
}): Layer.Layer<never> =>
  Layer.merge(
    Logger.layer([Logger.map(jsonLine, (line) => options.write(`${line}\n`))]),
    Layer.succeed(References.MinimumLogLevel, options.minimumLevel)
  )
