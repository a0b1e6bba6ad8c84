/**
 * Network namespaces of Linux, in which tests and benchmarks have a network that the machine's firewall, settings and
 * traffic do not reach. Needs root, and the programs `ip`, `unshare` and `nsenter`.
 */
import { Effect } from "effect"
import { spawn } from "node:child_process"
import { mkdir, mkdtemp, rmdir } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { type CommandFailed, run } from "../process/Command.ts"
import { ended } from "../process/Subprocess.ts"

/** A network namespace: by the id of a process in it, or by the name that `ip netns add` gave it. */
export type Namespace = number | string

/** The command that runs the command behind it in a namespace. */
export const enter = (namespace: Namespace): readonly [string, ...ReadonlyArray<string>] => [
  "nsenter",
  `--net=${typeof namespace === "number" ? `/proc/${namespace}/ns/net` : `/run/netns/${namespace}`}`
]

/** Runs `ip` in this process' namespace. */
export const ip = (...args: ReadonlyArray<string>): Effect.Effect<string, CommandFailed> => run("ip", args)

/** The same in a namespace, if one is given. */
export const ipIn = (namespace: Namespace | undefined, ...args: ReadonlyArray<string>) => {
  if (namespace === undefined) return ip(...args)
  const [command, ...rest] = enter(namespace)
  return run(command, [...rest, "ip", ...args])
}

/** Switches a device on, in this process' namespace unless another is given. */
export const up = (device: string, namespace?: Namespace) => ipIn(namespace, "link", "set", device, "up")

/** Gives a device an address (`10.0.0.1/24`). Nobody else has it: IPv6 would ask first, for a second. */
export const addAddress = (address: string, device: string, namespace?: Namespace) =>
  ipIn(namespace, "address", "add", address, "dev", device, ...(address.includes(":") ? ["nodad"] : []))

export interface LinkOptions {
  /** The end in this process' namespace; at most 15 characters. */
  readonly name: string
  /** A bridge that this end becomes a port of, and is then switched on. */
  readonly bridge?: string
  readonly namespace: Namespace
  /** The end in `namespace`; at most 15 characters. */
  readonly inside: string
}

/** Links this process' namespace to another one by a pair of virtual Ethernet devices. */
export const link = Effect.fnUntraced(function*({ bridge, inside, name, namespace }: LinkOptions) {
  yield* ip("link", "add", name, "type", "veth", "peer", "name", inside, "netns", String(namespace))
  if (bridge !== undefined) yield* ip("link", "set", name, "master", bridge, "up")
})

/**
 * Runs this program again in namespaces of its own, with a variable in its environment, and gives the exit code.
 * Interruption sends `signal` and waits for the end.
 */
export const runAgain = (options: {
  /** Options of `unshare`, such as `--net`. */
  readonly namespaces: ReadonlyArray<string>
  readonly environment: Readonly<Record<string, string>>
  readonly signal: "SIGTERM" | "SIGKILL"
}): Effect.Effect<number> =>
  Effect.callback((resume) => {
    const again = [process.execPath, ...process.execArgv, ...process.argv.slice(1)]
    const child = spawn("unshare", [...options.namespaces, ...again], {
      stdio: "inherit",
      env: { ...process.env, ...options.environment }
    })
    child.once("exit", (code) => resume(Effect.succeed(code ?? 1)))
    return Effect.suspend(() => {
      child.kill(options.signal)
      return ended(child)
    })
  })

/** The bridge between whatever runs in an isolated program. */
export const bridge = "spegel"

const marker = "SPEGEL_ISOLATED_DIRECTORY"

/**
 * Runs this program again with a network of its own, in which there is nothing but a bridge, with processes that end with
 * the first of them, and with mounts that go with them; gives its exit code. The program that runs again does `effect`.
 */
export const isolated = <E, R>(effect: Effect.Effect<number, E, R>): Effect.Effect<number, E | CommandFailed, R> =>
  Effect.suspend(() => {
    const directory = process.env[marker]
    return directory === undefined ? runIsolated : Effect.andThen(prepare(directory), effect)
  })

const runIsolated = Effect.acquireUseRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "spegel-isolated-"))),
  (directory) =>
    runAgain({
      namespaces: ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"],
      environment: { [marker]: directory },
      signal: "SIGKILL"
    }),
  (directory) => Effect.promise(() => rmdir(directory))
)

const prepare = Effect.fnUntraced(function*(directory: string) {
  // Writes that wait for a disk would be measured as delays of the mirror.
  yield* run("mount", ["-t", "tmpfs", "-o", "size=12g,mode=0700", "spegel-isolated", directory])
  process.env["TMPDIR"] = directory
  // `ip netns` keeps the names of network namespaces there.
  yield* Effect.promise(() => mkdir("/run/netns", { recursive: true }))
  yield* run("mount", ["-t", "tmpfs", "spegel-isolated", "/run/netns"])
  yield* up("lo")
  yield* ip("link", "add", bridge, "type", "bridge")
  yield* up(bridge)
})
