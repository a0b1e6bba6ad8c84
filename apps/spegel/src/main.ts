/** The `spegel` command as a process. */
import * as CommandLine from "./cli/CommandLine.ts"
import { runMain } from "./cli/MainProcess.ts"
import { mirrorFlags } from "./commands/doctor.ts"
import * as MirrorArguments from "./doctor/MirrorArguments.ts"

runMain((output) => {
  const given = process.argv.slice(2)
  // Only the doctor looks at the mirror beside it.
  const args = given.includes("doctor") ? MirrorArguments.inherit(given, mirrorFlags) : given
  return CommandLine.run({ args, environment: process.env }, output)
})
