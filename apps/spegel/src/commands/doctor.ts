import * as RegistryFilter from "@spegel-ts/oci/RegistryFilter"
import { Console, Data, Effect, Option, Result, Runtime } from "effect"
import { Command, Flag } from "effect/cli"
import { isatty } from "node:tty"
import { flagName, flagOnly, flagsOf } from "../cli/Setting.ts"
import { registrySettings } from "../settings/RegistrySettings.ts"
import { clientNameOf, clientTokenOf, peerAuthOf } from "../settings/TrustSettings.ts"
import { configurationSettings } from "./configuration.ts"

const { registryAddr, routerAddr, metricsAddr, containerdSock, containerdNamespace, containerdContentPath } =
  registrySettings

export const doctorSettings = {
  output: flagOnly({
    description: "Output format",
    fallback: "text",
    metavar: "text|json",
    flag: (name) => Flag.Literals(name, ["text", "json"])
  }),
  containerdSock,
  containerdNamespace,
  containerdContentPath,
  containerdConfig: configurationSettings.containerdConfig,
  containerdRegistryConfigPath: registrySettings.containerdRegistryConfigPath,
  mirroredRegistries: registrySettings.mirroredRegistries,
  registryAddr,
  routerAddr,
  metricsAddr,
  clusterKeyFile: registrySettings.clusterKeyFile,
  peerAuth: registrySettings.peerAuth,
  nodeName: configurationSettings.nodeName
}

/** The flags that a mirror has too. */
export const mirrorFlags: ReadonlySet<string> = new Set(
  Object.keys(doctorSettings).filter((setting) => setting in registrySettings).map(flagName)
)

/** The examination did not prove that the mirror works. */
export class NotProved extends Data.TaggedError("NotProved")<{ readonly result: "not proved" | "problem" }> {
  override get message() {
    return this.result === "problem"
      ? "spegel doctor found a problem"
      : "spegel doctor found nothing wrong, but could not try a pull"
  }
  override readonly [Runtime.errorExitCode] = this.result === "problem" ? 1 : 3
}

const useColours = ({ NO_COLOR, TERM }: NodeJS.ProcessEnv): boolean => isatty(1) && !NO_COLOR && TERM !== "dumb"

export const doctor = Command.make(
  "doctor",
  flagsOf(doctorSettings),
  Effect.fnUntraced(function*({ output, ...settings }) {
    const peerAuth = yield* peerAuthOf(settings)
    const mirroredRegistries = yield* Effect.fromResult(
      Result.all(settings.mirroredRegistries.map((registry) => RegistryFilter.registryHost(registry)))
    )
    // Loaded only when they are used: they bring a TOML parser.
    const [Doctor, Report, { resultOf }] = yield* Effect.promise(() =>
      Promise.all([import("../doctor/Doctor.ts"), import("../doctor/Report.ts"), import("../doctor/Check.ts")])
    )
    const examination = yield* Doctor.examine({
      ...settings,
      mirroredRegistries,
      peerAuth,
      nodeName: clientNameOf(settings.nodeName),
      token: Effect.orElseSucceed(clientTokenOf(settings), () => Option.none())
    })
    yield* Console.log(
      output === "json" ? Report.json(examination) : Report.text(examination, { colours: useColours(process.env) })
    )
    const result = resultOf(examination.checks)
    if (result !== "proved") return yield* new NotProved({ result })
  })
).pipe(
  Command.withDescription("Check that containerd on this node pulls through the mirror, and say what prevents it"),
  Command.withExamples([
    { command: "spegel doctor", description: "This node, with the flags of the mirror that runs in this container" },
    { command: "spegel doctor --output=json --registry-addr=:30020", description: "For a script" }
  ])
)
