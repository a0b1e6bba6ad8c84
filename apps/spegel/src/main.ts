/** The `spegel` command as a process. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Logging from "@spegel-ts/telemetry/Logging"
import { Cause, Exit } from "effect"
import { writeSync } from "node:fs"
import * as CommandLine from "./CommandLine.ts"

// A closed terminal ends the demo as Ctrl-C does.
process.once("SIGHUP", () => process.kill(process.pid, "SIGTERM"))

const output: CommandLine.Output = {
  complain: (line) => writeSync(process.stderr.fd, `spegel: ${line}\n`),
  logging: (level) => Logging.layer({ minimumLevel: level, write: (line) => writeSync(process.stderr.fd, line) })
}

NodeRuntime.runMain(CommandLine.run(process.argv.slice(2), process.env, output), {
  disableErrorReporting: true,
  // A signal is how a daemon ends: Kubernetes takes any other code for a crash.
  teardown: (exit, onExit) => onExit(Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause) ? 0 : 1)
})
