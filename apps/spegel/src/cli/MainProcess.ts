/** Runs a command line as this process. A signal ends it with code 0 and a failure with 1, or with the code that the error has, once standard error is written. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Cause, type Effect, Exit, Runtime } from "effect"
import * as StandardError from "./StandardError.ts"

/** Runs `program` and then ends the process. To be called once, before anything else. */
export const runMain = <E, A>(program: (output: typeof StandardError) => Effect.Effect<A, E>): void => {
  StandardError.takeOver()
  NodeRuntime.runMain(program(StandardError), {
    disableErrorReporting: true,
    // A daemon ends by a signal, and Kubernetes takes any other code for a crash.
    teardown: (exit, onExit) => {
      const code = Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause)
        ? 0
        : Runtime.getErrorExitCode(Cause.squash(exit.cause))
      StandardError.beforeExit(() => onExit(code))
    }
  })
}
