/** Warnings about a containerd that will not ask the mirror, whatever hosts.toml says. */
import * as ContainerdConfig from "@spegel-ts/containerd/ContainerdConfig"
import { Effect } from "effect"
import { existsSync } from "node:fs"

/** The version by the socket; loaded only where there is one, as gRPC takes memory. */
const versionOf = Effect.fnUntraced(function*(socket: string) {
  const { ContainerdClient } = yield* Effect.promise(() => import("@spegel-ts/containerd/ContainerdClient"))
  return yield* Effect.gen(function*() {
    return yield* (yield* ContainerdClient).version
  }).pipe(Effect.provide(ContainerdClient.layer({ socket, namespace: "k8s.io" })))
})

/** Logs what keeps containerd from asking the mirror, where its configuration and its socket are in reach. */
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
      yield* Effect.logWarning(`containerd does not use this mirror: ${ContainerdConfig.advice(finding)}`).pipe(
        Effect.annotateLogs({ file: containerdConfig, containerd })
      )
    }
  }).pipe(
    Effect.timeout("5 seconds"),
    // The configuration is written all the same: this is advice.
    Effect.catch((error) => Effect.logWarning(`cannot tell whether containerd uses this mirror: ${error.message}`))
  )
})
