/** Looks in containerd's configuration for what keeps it from asking the mirror, whatever hosts.toml says. */
import * as ConfigFindings from "@spegel-ts/containerd/ConfigFindings"
import {
  ContainerdClient,
  type ContainerdFailed,
  type ContainerdUnavailable
} from "@spegel-ts/containerd/ContainerdClient"
import * as ContainerdConfig from "@spegel-ts/containerd/ContainerdConfig"
import { Effect, Option } from "effect"
import { existsSync } from "node:fs"

const versionOf = (socket: string) =>
  Effect.flatMap(ContainerdClient, ({ version }) => version).pipe(
    Effect.provide(ContainerdClient.layer({ socket, socketSetting: "--containerd-sock", namespace: "k8s.io" }))
  )

/** Logs what keeps containerd from asking the mirror, if its configuration and its socket can be reached. */
export const warn = Effect.fn("MirrorUse.warn")(function*(options: {
  readonly containerdConfig: string
  readonly containerdSock: string
  readonly configPath: string
}) {
  const { configPath, containerdConfig, containerdSock } = options
  if (!existsSync(containerdConfig) || !existsSync(containerdSock)) return
  yield* Effect.gen(function*() {
    const config = yield* ContainerdConfig.read(containerdConfig)
    const containerd = yield* versionOf(containerdSock)
    for (const finding of ConfigFindings.find(config, { containerd, configPath })) {
      yield* Effect.logWarning(ConfigFindings.describe(finding)).pipe(
        Effect.annotateLogs({ file: containerdConfig, containerd })
      )
    }
  }).pipe(
    Effect.timeout("5 seconds"),
    // This is only advice: the configuration has been written.
    Effect.catch((error) => Effect.logWarning(`cannot tell whether containerd uses this mirror: ${error.message}`))
  )
})

/** A finding that holds inside a container too, which sees other paths; and inline mirrors may name this mirror. */
export type CertainFinding = Exclude<
  ConfigFindings.Finding,
  { readonly _tag: "ConfigPathElsewhere" | "InlineMirrors" }
>

const isCertain = (finding: ConfigFindings.Finding): finding is CertainFinding =>
  finding._tag !== "ConfigPathElsewhere" && finding._tag !== "InlineMirrors"

/** Findings in the configuration that containerd reports (1.x), otherwise in the file; none if we have neither. */
export const findings = Effect.fn("MirrorUse.findings")(function*(
  client: Pick<typeof ContainerdClient.Service, "criConfig" | "version">,
  options: { readonly containerdConfig: string; readonly configPath: string }
): Effect.fn.Return<Option.Option<ReadonlyArray<CertainFinding>>, ContainerdUnavailable | ContainerdFailed> {
  const containerd = yield* client.version
  const own = Option.flatMap(yield* client.criConfig, ContainerdConfig.ofCriStatus)
  const file = existsSync(options.containerdConfig)
    ? yield* ContainerdConfig.read(options.containerdConfig).pipe(
      Effect.tapError(({ message }) => Effect.logInfo(`cannot tell whether containerd uses this mirror: ${message}`)),
      Effect.option
    )
    : Option.none()
  return Option.map(
    Option.orElse(own, () => file),
    (config) => ConfigFindings.find(config, { containerd, configPath: options.configPath }).filter(isCertain)
  )
})
