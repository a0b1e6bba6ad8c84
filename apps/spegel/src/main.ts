/** The `spegel` command. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Cause, Effect, Exit, Layer, type LogLevel, Option } from "effect"
import { CliConfig, CliOutput, Command, GlobalFlag } from "effect/cli"
import { cleanup } from "./commands/cleanup.ts"
import { cleanupWait } from "./commands/cleanupWait.ts"
import { configuration } from "./commands/configuration.ts"
import { dataDir } from "./commands/dataDir.ts"
import { demo } from "./commands/demo.ts"
import { registry } from "./commands/registry.ts"
import { version as versionCommand } from "./commands/version.ts"
import { expandLists, one, textSchema } from "./Flags.ts"
import * as StandardError from "./StandardError.ts"
import { version } from "./Version.ts"

const levels = new Map<string, LogLevel.LogLevel>([
  ["DEBUG", "Debug"],
  ["INFO", "Info"],
  ["WARN", "Warn"],
  ["ERROR", "Error"]
])

const logLevel = one({
  name: "log-level",
  environment: "LOG_LEVEL",
  description: "Least severe logs to write: DEBUG, INFO, WARN or ERROR",
  schema: textSchema<LogLevel.LogLevel>({
    expected: "DEBUG, INFO, WARN or ERROR",
    parse: (text) => Option.fromUndefinedOr(levels.get(text.toUpperCase())),
    print: (level) => level.toUpperCase()
  }),
  fallback: "INFO",
  metavar: "LEVEL"
})

/** Flags behind which Go Spegel takes several values. */
const listFlags = new Set([
  "--mirrored-registries",
  "--registry-filters",
  "--mirror-targets",
  "--bootstrap-kind",
  "--peer-cidrs",
  "--static-bootstrap-peers"
])

const spegel = Command.make("spegel").pipe(
  Command.withSharedFlags({ logLevel }),
  Command.withDescription("Stateless, cluster-local, peer-to-peer mirror of OCI registries"),
  Command.withSubcommands([registry, configuration, cleanup, cleanupWait, dataDir, demo, versionCommand]),
  Command.provide(({ logLevel }) => StandardError.logging(logLevel))
)

/** One line, whatever went wrong; without the words that the parser puts around a schema's. */
const complain = (message: string) => {
  const line = message.split(/\s*\n\s*/).join(" ").replace(
    /Expected: (?:Schema validation failed: |SchemaError\()/g,
    ""
  )
  return Effect.sync(() => StandardError.complain(line.trim()))
}

const presenter: CliOutput.Presenter = {
  present: (event) =>
    event._tag === "InvalidInvocation"
      ? complain(`${event.errors.map(({ message }) => message).join("; ")} (see ${event.commandPath.join(" ")} --help)`)
      : CliOutput.defaultPresenter.present(event)
}

StandardError.takeOver()

Command.runWith(spegel, { version })(expandLists(process.argv.slice(2), listFlags)).pipe(
  Effect.tapCause((cause) =>
    Cause.hasInterruptsOnly(cause) ? Effect.void : Option.match(Cause.findErrorOption(cause), {
      onNone: () => complain(`unexpected failure: ${Cause.pretty(cause)}`),
      onSome: (error) => error._tag === "ShowHelp" ? Effect.void : complain(error.message)
    })
  ),
  Effect.provide(Layer.mergeAll(
    NodeServices.layer,
    CliOutput.layerPresenter(presenter),
    CliConfig.layer({ builtIns: [GlobalFlag.Help, GlobalFlag.Version, GlobalFlag.Completions] })
  )),
  (program) =>
    NodeRuntime.runMain(program, {
      disableErrorReporting: true,
      // A signal is how a daemon ends: Kubernetes takes any other code for a crash.
      teardown: (exit, onExit) => {
        const code = Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause) ? 0 : 1
        StandardError.beforeExit(() => onExit(code))
      }
    })
)
