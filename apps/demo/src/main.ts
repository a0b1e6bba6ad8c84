/** `npm run demo`: the demo as a process. */
import * as CommandLine from "@spegel-ts/spegel/cli/CommandLine"
import { runMain } from "@spegel-ts/spegel/cli/MainProcess"
import { Command } from "effect/cli"
import { demo } from "./Demo.ts"

// Nobody reads any more, as behind `| head`: it ends as by Ctrl-C.
process.stdout.on("error", () => process.kill(process.pid, "SIGINT"))

runMain((output) =>
  CommandLine.runCommand(
    demo.pipe(Command.provide(() => output.logging("Info"))),
    { args: process.argv.slice(2), environment: process.env },
    output
  )
)
