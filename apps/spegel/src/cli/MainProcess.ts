/** Runs a command line as this process, which ends with its exit code once standard error is written. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import type { Effect } from "effect"
import * as ExitCode from "./report/ExitCode.ts"
import * as StandardError from "./StandardError.ts"

/** Runs `program` and then ends the process. To be called once, before anything else. */
export const runMain = <E, A>(program: (output: typeof StandardError) => Effect.Effect<A, E>): void => {
  StandardError.takeOver()
  NodeRuntime.runMain(program(StandardError), {
    disableErrorReporting: true,
    teardown: (exit, onExit) => StandardError.beforeExit(() => onExit(ExitCode.of(exit)))
  })
}
