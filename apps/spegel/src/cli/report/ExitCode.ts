/** The code with which a command ends, as scripts and init systems read it; docs/configuration.md lists them. */
import { Cause, Exit, Option, Predicate, Runtime } from "effect"

/** Errors of who wrote the command line or the environment: trying again does not help. */
const usageErrors = ["ShowHelp", "SettingsInvalid"]

/** 0 for success and for an end by a signal, 2 where the command line is wrong, the error's own code if it has one, else 1. */
export const of = (exit: Exit.Exit<unknown, unknown>): number => {
  // A daemon ends by a signal, and Kubernetes takes any other code for a crash.
  if (Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause)) return 0
  const error = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
  return usageErrors.some((tag) => Predicate.isTagged(error, tag)) ? 2 : Runtime.getErrorExitCode(error)
}
