/** The code with which a command ends, as scripts and init systems read it; docs/configuration.md lists them. */
import { Cause, Exit, Runtime } from "effect"
import { CliError } from "effect/cli"

/** The command line or the environment is wrong: trying again does not help. */
const usageError = 2

/** 0 for success and for an end by a signal, 2 where the command line is wrong; for other failures the error's own code, or 1. */
export const of = (exit: Exit.Exit<unknown, unknown>): number => {
  // A daemon ends by a signal, and Kubernetes takes any other code for a crash.
  if (Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause)) return 0
  const error = Cause.squash(exit.cause)
  return CliError.isCliError(error) ? usageError : Runtime.getErrorExitCode(error)
}
