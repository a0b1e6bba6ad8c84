import { Console } from "effect"
import { Command } from "effect/cli"
import { version as current } from "../Version.ts"

export const version = Command.make("version", {}, () => Console.log(current)).pipe(
  Command.withDescription("Print the version")
)
