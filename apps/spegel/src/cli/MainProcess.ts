/** Runs a command line as this process. A signal ends it with code 0, a failure with 1 or with the error's own code, once standard error is written. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Cause, type Effect, Exit, Runtime } from "effect"
import { CliError } from "effect/cli"
import * as StandardError from "./StandardError.ts"

/** A command line that cannot be understood is told from a command that failed. */
const usageError = 2

const exitCode = <A, E>(exit: Exit.Exit<A, E>): number => {
  // A daemon ends by a signal, and Kubernetes takes any other code for a crash.
  if (Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause)) return 0
  const error = Cause.squash(exit.cause)
  return CliError.isCliError(error) ? usageError : Runtime.getErrorExitCode(error)
}

/** Runs `program` and then ends the process. To be called once, before anything else. */
export const runMain = <E, A>(program: (output: typeof StandardError) => Effect.Effect<A, E>): void => {
  StandardError.takeOver()
  NodeRuntime.runMain(program(StandardError), {
    disableErrorReporting: true,
    teardown: (exit, onExit) => {
      const code = exitCode(exit)
      StandardError.beforeExit(() => onExit(code))
    }
  })
}
