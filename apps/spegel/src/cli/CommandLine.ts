/** The `spegel` command line: its commands, and how failures are reported. */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Cause, ConfigProvider, Console, Effect, Layer, type LogLevel, Option } from "effect"
import { CliConfig, CliOutput, Command, GlobalFlag, TerminalCapabilities } from "effect/cli"
import { cleanup, cleanupSettings } from "../commands/cleanup.ts"
import { cleanupWait, cleanupWaitSettings } from "../commands/cleanupWait.ts"
import { clusterKey, ensureSettings, generateSettings, removeSettings } from "../commands/clusterKey.ts"
import { configuration, configurationSettings } from "../commands/configuration.ts"
import { dataDir, dataDirSettings } from "../commands/dataDir.ts"
import { debugSettings } from "../commands/DebugViews.ts"
import { doctor, doctorSettings } from "../commands/doctor.ts"
import { lookup } from "../commands/lookup.ts"
import { probe, probeSettings } from "../commands/probe.ts"
import { registry } from "../commands/registry.ts"
import { status } from "../commands/status.ts"
import { version as versionCommand, versionSettings } from "../commands/version.ts"
import * as FlagHints from "../settings/FlagHints.ts"
import { registrySettings } from "../settings/RegistrySettings.ts"
import { version } from "../Version.ts"
import * as GoArguments from "./GoArguments.ts"
import * as HelpText from "./report/HelpText.ts"
import { flagName, flagsOf, one, type Settings } from "./Setting.ts"
import { textSchema } from "./TextSchema.ts"

/** Log levels, the least severe first, with their numbers in Go's slog. */
const levels: ReadonlyArray<readonly [name: string, number: number, level: LogLevel.LogLevel]> = [
  ["DEBUG", -4, "Debug"],
  ["INFO", 0, "Info"],
  ["WARN", 4, "Warn"],
  ["ERROR", 8, "Error"]
]

/** Reads a level's name in any case. slog also has levels between them, such as `INFO+2`. */
const parseLevel = (text: string): Option.Option<LogLevel.LogLevel> => {
  const [, name = "", offset = "0"] = /^([A-Z]+)([+-]\d{1,3})?$/.exec(text.toUpperCase()) ?? []
  const named = levels.find(([known]) => known === name)
  if (named === undefined) return Option.none()
  const least = named[1] + Number(offset)
  return Option.some(levels.find(([, number]) => number >= least)?.[2] ?? "None")
}

/** The settings of every command. */
const sharedSettings = {
  logLevel: one({
    description: "Least severe logs to write: DEBUG, INFO, WARN or ERROR",
    schema: textSchema<LogLevel.LogLevel>({
      expected: "DEBUG, INFO, WARN or ERROR",
      parse: parseLevel,
      print: (level) => level.toUpperCase()
    }),
    fallback: "INFO",
    metavar: "LEVEL"
  })
}

/** The tables that the flags of all commands are made of, by the name of the command; those of every command first. */
export const settings: ReadonlyMap<string, Settings> = new Map<string, Settings>([
  ["every command", sharedSettings],
  ["registry", registrySettings],
  ["configuration", configurationSettings],
  ["cleanup", cleanupSettings],
  ["cleanup-wait", cleanupWaitSettings],
  ["cluster-key generate", generateSettings],
  ["cluster-key ensure", ensureSettings],
  ["cluster-key remove", removeSettings],
  ["data-dir", dataDirSettings],
  ["status", debugSettings],
  ["lookup", debugSettings],
  ["probe", probeSettings],
  ["doctor", doctorSettings],
  ["version", versionSettings]
])

/** Flags behind which Go Spegel takes several values. */
const repeatable: ReadonlySet<string> = new Set(
  [...settings.values()].flatMap((table) =>
    Object.entries(table).filter(([, { isRepeatable }]) => isRepeatable).map(([key]) => flagName(key))
  )
)

const spegel = (output: Output) =>
  Command.make("spegel").pipe(
    Command.withSharedFlags(flagsOf(sharedSettings)),
    Command.withDescription("Stateless, cluster-local, peer-to-peer mirror of OCI registries"),
    Command.withExamples([
      { command: "spegel configuration --help", description: "Settings that make containerd use the mirror" },
      { command: "spegel registry --help", description: "Settings of the mirror" }
    ]),
    Command.withSubcommands([
      registry,
      configuration,
      cleanup,
      cleanupWait,
      clusterKey,
      dataDir,
      status,
      lookup,
      probe,
      doctor,
      versionCommand
    ]),
    Command.provide(({ logLevel }) => output.logging(logLevel))
  )

const presentHelp = Effect.fnUntraced(function*(
  { commandPath, helpDoc }: CliOutput.Presenter.Help,
  { COLUMNS: columns }: Invocation["environment"]
) {
  const { canColor } = yield* TerminalCapabilities.TerminalCapabilities
  const table = Object.entries(settings.get(commandPath.slice(1).join(" ")) ?? {})
  const groups = new Map(table.map(([key, { group }]) => [flagName(key), group]))
  yield* Console.log(HelpText.render(helpDoc, {
    columns: HelpText.columnsOf(columns, process.stdout.columns),
    color: canColor,
    groupOf: (flag) => groups.get(flag)
  }))
})

/** Where a command reports, apart from its standard output. */
export interface Output {
  /** Writes the one line that says why the command failed. */
  readonly complain: (line: string) => void
  /** Writes logs of this level and above. */
  readonly logging: (level: LogLevel.LogLevel) => Layer.Layer<never>
}

/** The arguments and environment of a process. */
export interface Invocation {
  readonly args: ReadonlyArray<string>
  readonly environment: Readonly<Record<string, string | undefined>>
}

/** Runs `spegel` to its end. When the effect fails, `output` has the failure already. */
export const run = (invocation: Invocation, output: Output) => runCommand(spegel(output), invocation, output)

/** Runs any command as `run` runs `spegel`: with the same failure reports, built-in flags and argument syntax. */
export const runCommand = <Name extends string, Input, E extends { readonly _tag: string; readonly message: string }>(
  command: Command.Command<Name, Input, unknown, E, NodeServices.NodeServices>,
  { args, environment }: Invocation,
  output: Output
) => {
  const complain = (message: string) => Effect.sync(() => output.complain(message.split(/\s*\n\s*/).join(" ").trim()))
  const presenter: CliOutput.Presenter = {
    present: (event) => {
      switch (event._tag) {
        case "InvalidInvocation":
          return complain(
            `${event.errors.map(({ message }) => message).join("; ")} (see ${event.commandPath.join(" ")} --help)`
          )
        case "Help":
          return presentHelp(event, environment)
        case "Version":
          return CliOutput.defaultPresenter.present(event)
      }
    }
  }
  return Command.runWith(command, { version })(GoArguments.normalise(args, repeatable)).pipe(
    Effect.tapCause((cause) =>
      Cause.hasInterruptsOnly(cause) ? Effect.void : Option.match(Cause.findErrorOption(cause), {
        onNone: () => complain(`unexpected failure: ${Cause.pretty(cause)}`),
        onSome: (error) => error._tag === "ShowHelp" ? Effect.void : complain(FlagHints.withFlags(error))
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
