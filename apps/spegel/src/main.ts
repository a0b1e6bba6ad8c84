/** The `spegel` command as a process. */
import * as CommandLine from "./cli/CommandLine.ts"
import { runMain } from "./cli/MainProcess.ts"

runMain((output) => CommandLine.run({ args: process.argv.slice(2), environment: process.env }, output))
