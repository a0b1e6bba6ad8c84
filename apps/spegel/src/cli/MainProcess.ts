/** Runs a command line as this process: signals end it with code 0, failures with 1, after standard error is written. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Cause, type Effect, Exit } from "effect"
import * as StandardError from "./StandardError.ts"

/** Runs `program` and ends the process with it. Call it once, first thing. */
export const runMain = <E, A>(program: (output: typeof StandardError) => Effect.Effect<A, E>): void => {
  StandardError.takeOver()
  NodeRuntime.runMain(program(StandardError), {
    disableErrorReporting: true,
    // A signal is how a daemon ends: Kubernetes takes any other code for a crash.
    teardown: (exit, onExit) => {
      const code = Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause) ? 0 : 1
      StandardError.beforeExit(() => onExit(code))
    }
  })
}
