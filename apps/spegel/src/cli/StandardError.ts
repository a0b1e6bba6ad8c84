/**
 * The standard error of this process: logs, the reason why it ends, and warnings of Node. Nothing else writes to it, since a write
 * can block until somebody reads. Lines are text on a terminal, and JSON elsewhere.
 */
import * as Logging from "@spegel-ts/telemetry/Logging"
import * as LogWriter from "@spegel-ts/telemetry/LogWriter"
import { terminal } from "@spegel-ts/telemetry/TerminalLine"
import { type Layer, type LogLevel } from "effect"
import { isatty } from "node:tty"

const fd = 2
const isTerminal = isatty(fd)
const format: Logging.Format = isTerminal ? terminal(process.env) : Logging.json
const line = (level: string, message: string, fields: Readonly<Record<string, unknown>> = {}, error?: string) =>
  format({ time: new Date(), level, message, fields, error })

const writer = LogWriter.make(fd, {
  // Node makes a pipe or socket non-blocking when it makes a stream of it (libuv, uv_pipe_open).
  unblock: () => void process.stderr,
  notice: (dropped) => line("WARN", `${dropped} log lines were dropped: nobody read them in time`)
})

/** How long the process waits at its end until its log is read. */
const flushMillis = 500

/** Writes logs of `minimumLevel` and above. */
export const logging = (minimumLevel: LogLevel.LogLevel): Layer.Layer<never> =>
  Logging.layer({ minimumLevel, format, write: writer.write })

/** Writes why a command ends. */
export const complain = (message: string): void =>
  writer.write(isTerminal ? `spegel: ${message}\n` : line("ERROR", message))

/** Calls `exit` once everything is written, or after half a second. */
export const beforeExit = (exit: () => void): void => void writer.flush(flushMillis).then(exit)

/** From now on, warnings of Node and uncaught exceptions are lines like all others. */
export const takeOver = (): void => {
  // There is no listener if warnings are switched off.
  if (process.listenerCount("warning") > 0) {
    process.removeAllListeners("warning")
    process.on("warning", ({ message, name, stack }) => writer.write(line("WARN", message, { warning: name }, stack)))
  }
  process.on("uncaughtException", (error) => {
    writer.write(line("ERROR", `unexpected failure: ${Logging.textOf(error)}`, {}, error.stack))
    beforeExit(() => process.exit(1))
  })
}
