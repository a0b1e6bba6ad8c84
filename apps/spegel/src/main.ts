/** The `spegel` command as a process. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Cause, Exit } from "effect"
import * as CommandLine from "./CommandLine.ts"
import * as StandardError from "./StandardError.ts"

StandardError.takeOver()

NodeRuntime.runMain(CommandLine.run(process.argv.slice(2), process.env, StandardError), {
  disableErrorReporting: true,
  // A signal is how a daemon ends: Kubernetes takes any other code for a crash.
  teardown: (exit, onExit) => {
    const code = Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause) ? 0 : 1
    StandardError.beforeExit(() => onExit(code))
  }
})
