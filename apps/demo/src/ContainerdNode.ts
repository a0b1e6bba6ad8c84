/** A containerd daemon for a node of the demo, with its own root and socket, and pulls by its own client. */
import * as MirrorConfiguration from "@spegel-ts/containerd/MirrorConfiguration"
import * as Command from "@spegel-ts/testing/process/Command"
import { Effect, Option } from "effect"
import { existsSync } from "node:fs"
import { mkdir, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { type DemoNode, DemoUnsupported } from "./DemoCluster.ts"
import * as DemoProcess from "./DemoProcess.ts"

const pathsOf = (node: DemoNode) => ({
  root: join(node.directory, "root"),
  state: join(node.directory, "state"),
  config: join(node.directory, "config.toml"),
  certs: join(node.directory, "certs.d"),
  // A socket's path has 107 bytes at most.
  socket: join(node.directory, "c.sock")
})

const ctr = (node: DemoNode, args: ReadonlyArray<string>) =>
  Command.run("ctr", ["--address", pathsOf(node).socket, "--namespace", "k8s.io", ...args]).pipe(
    Effect.mapError(({ output }) => new DemoUnsupported({ reason: `ctr: ${output.trim()}` }))
  )

/** Fails if this machine cannot run real daemons: that takes root, `containerd` and `ctr`. */
export const check: Effect.Effect<void, DemoUnsupported> = Effect.suspend(() => {
  if (process.getuid?.() !== 0) return Effect.fail(new DemoUnsupported({ reason: "--containerd needs root" }))
  const installed = (name: string) =>
    (process.env["PATH"] ?? "").split(":").some((path) => existsSync(join(path, name)))
  return installed("containerd") && installed("ctr")
    ? Effect.void
    : Effect.fail(new DemoUnsupported({ reason: "--containerd needs containerd and ctr (Debian package containerd)" }))
})

/** Starts a node's daemon; gives the flags with which its mirror uses that store. */
export const start = Effect.fn("ContainerdNode.start")(function*(node: DemoNode) {
  const { config, root, socket, state } = pathsOf(node)
  yield* Effect.promise(async () => {
    await mkdir(root, { recursive: true })
    await writeFile(config, `version = 2\noom_score = 0\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n`)
  })
  yield* DemoProcess.start({
    name: `containerd of ${node.name}`,
    command: "containerd",
    args: ["--config", config, "--root", root, "--state", state, "--address", socket, "--log-level", "error"],
    ready: Effect.match(ctr(node, ["version"]), { onFailure: () => false, onSuccess: () => true })
  })
  return [
    "--store=containerd",
    `--containerd-sock=${socket}`,
    `--containerd-content-path=${join(root, "io.containerd.content.v1.content")}`
  ]
})

/** Pulls with the mirror first and the upstream registry last, as hosts.toml says. */
export const pull = Effect.fn("ContainerdNode.pull")(function*(node: DemoNode, upstream: string, image: string) {
  const { certs } = pathsOf(node)
  yield* MirrorConfiguration.write({
    configPath: certs,
    mirroredRegistries: [upstream],
    mirrorTargets: [node.registry],
    tagResolution: "mirror",
    prependExisting: false,
    basicAuth: Option.none()
  })
  yield* ctr(node, ["images", "pull", "--hosts-dir", certs, "--snapshotter", "native", image])
})
