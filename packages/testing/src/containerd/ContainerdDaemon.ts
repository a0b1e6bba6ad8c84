/** A real containerd daemon with its own root, state and socket, stopped and removed with the scope. */
import { Effect, Schedule } from "effect"
import type { ChildProcess } from "node:child_process"
import { existsSync, readFileSync } from "node:fs"
import { mkdir, writeFile } from "node:fs/promises"
import { join } from "node:path"
import * as NetworkNamespace from "../network/NetworkNamespace.ts"
import { run } from "../process/Command.ts"
import * as Subprocess from "../process/Subprocess.ts"
import * as TemporaryDirectory from "../TemporaryDirectory.ts"

/** containerd mounts each layer that it unpacks, for which root in a container usually lacks the capability. */
const mayMount = (): boolean => {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1] ?? "0"
  const sysAdmin = 1n << 21n
  return (BigInt(`0x${effective}`) & sysAdmin) !== 0n
}

/** Says what this machine lacks for a test; undefined if nothing. Throws in CI, where nothing may be missing. */
export const missingPrerequisite = (...programs: ReadonlyArray<string>): string | undefined => {
  const lacking = ["containerd", "ctr", ...programs].filter((program) => !existsSync(`/usr/bin/${program}`))
  const reason = process.getuid?.() !== 0
    ? "needs root"
    : !mayMount()
    ? "needs CAP_SYS_ADMIN, to mount (a container has to be privileged)"
    : lacking.length > 0
    ? `needs ${lacking.join(", ")} from Debian's packages`
    : undefined
  if (reason !== undefined && process.env["CI"] === "true") throw new Error(`CI lacks a prerequisite: ${reason}`)
  return reason
}

export interface ContainerdOptions {
  /** The programs to run, such as those of `ContainerdPackages`. Default: those that are installed. */
  readonly programs?: { readonly containerd: string; readonly ctr: string }
  /** The CRI plugin's directory of hosts.toml files; without it that plugin is off. */
  readonly configPath?: string
  /** Whether the CRI plugin discards layers once they are unpacked. */
  readonly discardUnpackedLayers?: boolean
  /** More of the configuration file, in version 2 of its format. */
  readonly settings?: string
  /** The network that the daemon and its client are in. Default: that of this process. */
  readonly namespace?: NetworkNamespace.Namespace
}

/** Starts a daemon and waits until it answers; fails with `CommandFailed` after 20 seconds. */
export const start = Effect.fnUntraced(function*(options?: ContainerdOptions) {
  const directory = yield* TemporaryDirectory.withPrefix("containerd-")
  const socket = join(directory, "s", "c.sock")
  const root = join(directory, "root")
  const cri = options?.configPath === undefined
    ? `disabled_plugins = ["io.containerd.grpc.v1.cri"]`
    : `[plugins."io.containerd.grpc.v1.cri"]\nstream_server_port = "0"\n` +
      `[plugins."io.containerd.grpc.v1.cri".containerd]\nsnapshotter = "native"\n` +
      `discard_unpacked_layers = ${options.discardUnpackedLayers === true}\n` +
      `[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "${options.configPath}"` +
      // containerd 2.x reads it under this key only.
      (options.discardUnpackedLayers === true
        ? `\n[plugins."io.containerd.cri.v1.images"]\ndiscard_unpacked_layers = true`
        : "")
  const { containerd, ctr: client } = options?.programs ?? { containerd: "containerd", ctr: "ctr" }
  yield* Effect.promise(async () => {
    await mkdir(join(directory, "s"))
    await writeFile(join(directory, "config.toml"), `version = 2\noom_score = 0\n${cri}\n${options?.settings ?? ""}`)
  })
  const args = ["--config", join(directory, "config.toml"), "--root", root, "--state", join(directory, "state")]

  const within = (program: string): readonly [string, ...ReadonlyArray<string>] =>
    options?.namespace === undefined ? [program] : [...NetworkNamespace.enter(options.namespace), program]
  const [ctrCommand, ...ctrArgs] = within(client)
  const ctr = (...command: ReadonlyArray<string>) =>
    run(ctrCommand, [...ctrArgs, "--address", socket, "--namespace", "k8s.io", ...command])

  let daemon: ChildProcess | undefined
  const kill = Effect.suspend(() => daemon === undefined ? Effect.void : Subprocess.kill(daemon))
  // One finalizer for all its starts: what a test registers later, such as the end of a container, still finds a daemon.
  yield* Effect.addFinalizer(() => kill)
  /** Starts the process and waits until it answers. */
  const launch = Effect.gen(function*() {
    const [command, ...before] = within(containerd)
    daemon = yield* Subprocess.launch(command, [...before, ...args, "--address", socket, "--log-level", "error"], {
      stdio: "ignore"
    })
    yield* ctr("version").pipe(Effect.retry({ schedule: Schedule.spaced("50 millis"), times: 400 }))
  })
  yield* launch

  return {
    directory,
    socket,
    contentPath: join(root, "io.containerd.content.v1.content"),
    ctr,
    kill,
    /** Kills the daemon and starts it again on the same root. */
    restart: Effect.andThen(kill, launch)
  }
})
