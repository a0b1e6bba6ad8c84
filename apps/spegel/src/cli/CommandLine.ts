/** The `spegel` command line: its commands, and how it tells what is wrong with one. */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Cause, ConfigProvider, Effect, Layer, type LogLevel, Option } from "effect"
import { CliConfig, CliOutput, Command, GlobalFlag } from "effect/cli"
import { cleanup } from "../commands/cleanup.ts"
import { cleanupWait } from "../commands/cleanupWait.ts"
import { configuration } from "../commands/configuration.ts"
import { dataDir } from "../commands/dataDir.ts"
import { probe } from "../commands/probe.ts"
import { registry } from "../commands/registry.ts"
import { version as versionCommand } from "../commands/version.ts"
import { version } from "../Version.ts"
import { listNames, one } from "./Flags.ts"
import * as GoArguments from "./GoArguments.ts"
import { textSchema } from "./TextSchema.ts"

/** Least severe first, with the numbers that Go's slog has for them. */
const levels: ReadonlyArray<readonly [name: string, number: number, level: LogLevel.LogLevel]> = [
  ["DEBUG", -4, "Debug"],
  ["INFO", 0, "Info"],
  ["WARN", 4, "Warn"],
  ["ERROR", 8, "Error"]
]

/** A level's name in any case; slog knows levels between them too, such as `INFO+2`. */
const parseLevel = (text: string): Option.Option<LogLevel.LogLevel> => {
  const [, name = "", offset = "0"] = /^([A-Z]+)([+-]\d{1,3})?$/.exec(text.toUpperCase()) ?? []
  const named = levels.find(([known]) => known === name)
  if (named === undefined) return Option.none()
  const least = named[1] + Number(offset)
  return Option.some(levels.find(([, number]) => number >= least)?.[2] ?? "None")
}

const logLevel = one({
  name: "log-level",
  description: "Least severe logs to write: DEBUG, INFO, WARN or ERROR",
  schema: textSchema<LogLevel.LogLevel>({
    expected: "DEBUG, INFO, WARN or ERROR",
    parse: parseLevel,
    print: (level) => level.toUpperCase()
  }),
  fallback: "INFO",
  metavar: "LEVEL"
})

const spegel = (output: Output) =>
  Command.make("spegel").pipe(
    Command.withSharedFlags({ logLevel }),
    Command.withDescription("Stateless, cluster-local, peer-to-peer mirror of OCI registries"),
    Command.withSubcommands([registry, configuration, cleanup, cleanupWait, dataDir, probe, versionCommand]),
    Command.provide(({ logLevel }) => output.logging(logLevel))
  )

/** Where a command tells of itself, beside what it prints. */
export interface Output {
  /** Takes the one line that says why the command failed. */
  readonly complain: (line: string) => void
  /** Takes logs of a level and of more severe ones. */
  readonly logging: (level: LogLevel.LogLevel) => Layer.Layer<never>
}

/** What a process was started with. */
export interface Invocation {
  readonly args: ReadonlyArray<string>
  readonly environment: Readonly<Record<string, string | undefined>>
}

/** Runs `spegel` to its end. A failure has been reported to `output` when the effect fails. */
export const run = (
  args: ReadonlyArray<string>,
  environment: Readonly<Record<string, string | undefined>>,
  output: Output
) => runCommand(spegel(output), { args, environment }, output)

/** Runs any command as `run` runs `spegel`: the same reports of failures, built-in flags and syntax of arguments. */
export const runCommand = <Name extends string, Input, E extends { readonly _tag: string; readonly message: string }>(
  command: Command.Command<Name, Input, unknown, E, NodeServices.NodeServices>,
  { args, environment }: Invocation,
  output: Output
) => {
  const complain = (message: string) => Effect.sync(() => output.complain(message.split(/\s*\n\s*/).join(" ").trim()))
  const presenter: CliOutput.Presenter = {
    present: (event) =>
      event._tag === "InvalidInvocation"
        ? complain(
          `${event.errors.map(({ message }) => message).join("; ")} (see ${event.commandPath.join(" ")} --help)`
        )
        : CliOutput.defaultPresenter.present(event)
  }
  return Command.runWith(command, { version })(GoArguments.normalise(args, listNames)).pipe(
    Effect.tapCause((cause) =>
      Cause.hasInterruptsOnly(cause) ? Effect.void : Option.match(Cause.findErrorOption(cause), {
        onNone: () => complain(`unexpected failure: ${Cause.pretty(cause)}`),
        onSome: (error) => error._tag === "ShowHelp" ? Effect.void : complain(error.message)
      })
    ),
    Effect.provide(Layer.mergeAll(
      NodeServices.layer,
      CliOutput.layerPresenter(presenter),
      CliConfig.layer({ builtIns: [GlobalFlag.Help, GlobalFlag.Version, GlobalFlag.Completions] }),
      ConfigProvider.layer(ConfigProvider.fromEnvRecord(environment))
    ))
  )
}
