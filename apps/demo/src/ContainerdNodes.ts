/** Real containerd daemons as the stores of the demo's nodes, and pulls by their own client. */
import * as MirrorConfiguration from "@spegel-ts/containerd/MirrorConfiguration"
import * as ContainerdDaemon from "@spegel-ts/testing/containerd/ContainerdDaemon"
import { Effect, Option } from "effect"
import { join } from "node:path"
import { type DemoNode, DemoUnsupported } from "./DemoCluster.ts"

/** Fails if this machine cannot run real daemons: that takes root, `containerd` and `ctr`. */
export const check: Effect.Effect<void, DemoUnsupported> = Effect.suspend(() => {
  const missing = ContainerdDaemon.missingPrerequisite()
  return missing === undefined
    ? Effect.void
    : Effect.fail(new DemoUnsupported({ reason: `--containerd ${missing}` }))
})

const unsupported = ({ message }: Error) => new DemoUnsupported({ reason: message })

/** The daemons of one run. */
export const make = () => {
  const daemons = new Map<DemoNode, Effect.Success<ReturnType<typeof ContainerdDaemon.start>>>()
  return {
    /** Starts a node's daemon; gives the flags with which its mirror uses that store. */
    storeOf: Effect.fnUntraced(function*(node: DemoNode) {
      const daemon = yield* Effect.mapError(ContainerdDaemon.start(), unsupported)
      daemons.set(node, daemon)
      return [
        "--store=containerd",
        `--containerd-sock=${daemon.socket}`,
        `--containerd-content-path=${daemon.contentPath}`
      ]
    }),
    /** Pulls with the mirror first and the upstream registry last, as hosts.toml says. */
    pull: Effect.fnUntraced(function*(node: DemoNode, upstream: string, image: string) {
      const daemon = daemons.get(node)
      if (daemon === undefined) return yield* Effect.die(new Error(`${node.name} has no daemon`))
      const certs = join(node.directory, "certs.d")
      yield* MirrorConfiguration.write({
        configPath: certs,
        mirroredRegistries: [upstream],
        mirrorTargets: [node.registry],
        tagResolution: "mirror",
        prependExisting: false,
        basicAuth: Option.none()
      })
      const pull = ["images", "pull", "--hosts-dir", certs, "--snapshotter", "native", image]
      yield* Effect.mapError(daemon.ctr(...pull), unsupported)
    })
  }
}

export type ContainerdNodes = ReturnType<typeof make>
