/** Runs a command line in this process, and gives its output and the line that says what is wrong. */
import * as CommandLine from "@spegel-ts/spegel/cli/CommandLine"
import * as ExitCode from "@spegel-ts/spegel/cli/report/ExitCode"
import { Console, Effect, Exit, Layer, Logger, References } from "effect"

/** A command line that has ended. */
export interface Finished {
  readonly succeeded: boolean
  /** The exit code that a process would have. */
  readonly code: number
  readonly stdout: string
  readonly complaints: ReadonlyArray<string>
  /** Its log at WARN and above: `LEVEL message`. */
  readonly warnings: ReadonlyArray<string>
}

/** Runs `spegel` to its end, with no other environment variables than those given. */
export const run = (args: ReadonlyArray<string>, environment: Readonly<Record<string, string>> = {}) =>
  runWith((output) => CommandLine.run({ args, environment }, output))

/** Runs any command line to its end. */
export const runWith = <A, E>(program: (output: CommandLine.Output) => Effect.Effect<A, E>) =>
  Effect.suspend(() => {
    const printed: Array<string> = []
    const complaints: Array<string> = []
    const warnings: Array<string> = []
    const logger = Logger.make(({ logLevel, message }) => warnings.push(`${logLevel} ${String(message)}`))
    const console: Console.Console = { ...globalThis.console, log: (...texts) => printed.push(texts.join(" ")) }
    const output: CommandLine.Output = {
      complain: (line) => complaints.push(line),
      logging: () => Layer.merge(Logger.layer([logger]), Layer.succeed(References.MinimumLogLevel, "Warn"))
    }
    return program(output).pipe(
      Effect.provideService(Console.Console, console),
      Effect.exit,
      Effect.map((exit): Finished => ({
        succeeded: Exit.isSuccess(exit),
        code: ExitCode.of(exit),
        stdout: printed.join("\n"),
        complaints,
        warnings
      }))
    )
  })
