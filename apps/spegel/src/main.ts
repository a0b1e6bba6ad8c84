/** The `spegel` command as a process. */
import * as CommandLine from "./cli/CommandLine.ts"
import { runMain } from "./cli/MainProcess.ts"
import { mirrorFlags } from "./commands/doctor.ts"
import * as MirrorArguments from "./doctor/MirrorArguments.ts"

runMain((output) => {
  const args = MirrorArguments.inherit(process.argv.slice(2), mirrorFlags)
  return CommandLine.run({ args, environment: process.env }, output)
})
