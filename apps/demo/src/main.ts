/** `npm run demo`: the demo as a process. */
import * as CommandLine from "@spegel-ts/spegel/cli/CommandLine"
import { runMain } from "@spegel-ts/spegel/cli/MainProcess"
import { Command } from "effect/cli"
import { demo } from "./Demo.ts"

runMain((output) =>
  CommandLine.runCommand(
    demo.pipe(Command.provide(() => output.logging("Info"))),
    { args: process.argv.slice(2), environment: process.env },
    output
  )
)
