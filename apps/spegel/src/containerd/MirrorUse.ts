/** Reasons in containerd's configuration why it does not ask the mirror, whatever hosts.toml says. */
import type { ContainerdClient, ContainerdFailed, ContainerdUnavailable } from "@spegel-ts/containerd/ContainerdClient"
import * as ContainerdConfig from "@spegel-ts/containerd/ContainerdConfig"
import { Effect, Option } from "effect"
import { existsSync } from "node:fs"

/** Asks containerd for its version. Loads its module only when there is a socket: gRPC takes memory. */
const versionOf = Effect.fnUntraced(function*(socket: string) {
  const { ContainerdClient } = yield* Effect.promise(() => import("@spegel-ts/containerd/ContainerdClient"))
  return yield* Effect.gen(function*() {
    return yield* (yield* ContainerdClient).version
  }).pipe(Effect.provide(ContainerdClient.layer({ socket, namespace: "k8s.io" })))
})

/** Warns about these reasons, if both the configuration and the socket are in reach. Never fails. */
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
    for (const finding of ContainerdConfig.verify(config, { containerd, configPath })) {
      yield* Effect.logWarning(ContainerdConfig.describe(finding)).pipe(
        Effect.annotateLogs({ file: containerdConfig, containerd })
      )
    }
  }).pipe(
    Effect.timeout("5 seconds"),
    // This is advice: the hosts.toml files are written already.
    Effect.catch((error) => Effect.logWarning(`cannot tell whether containerd uses this mirror: ${error.message}`))
  )
})

/** A finding that holds wherever this process runs: a container may see other paths, and inline mirrors may name this one. */
export type CertainFinding = Exclude<
  ContainerdConfig.Finding,
  { readonly _tag: "ConfigPathElsewhere" | "InlineMirrors" }
>

const isCertain = (finding: ContainerdConfig.Finding): finding is CertainFinding =>
  finding._tag !== "ConfigPathElsewhere" && finding._tag !== "InlineMirrors"

/** The findings in the configuration that containerd itself reports (1.x), else in the file; none if neither is in reach. */
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
    (config) => ContainerdConfig.verify(config, { containerd, configPath: options.configPath }).filter(isCertain)
  )
})
