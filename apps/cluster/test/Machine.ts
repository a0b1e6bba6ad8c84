/** Machines on one bridge: namespaces of the kernel, each with a first process, which end with the scope. */
import * as NetworkNamespace from "@spegel-ts/testing/network/NetworkNamespace"
import { bridge } from "@spegel-ts/testing/network/NetworkNamespace"
import * as Command from "@spegel-ts/testing/process/Command"
import * as Subprocess from "@spegel-ts/testing/process/Subprocess"
import { Effect, Schedule, type Scope } from "effect"
import { existsSync, globSync, openSync, readFileSync, rmdirSync } from "node:fs"
import { mkdir } from "node:fs/promises"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const scripts = fileURLToPath(new URL("../machines", import.meta.url))

export interface MachineOptions {
  readonly name: string
  readonly address: string
  /** Bits of the address that all machines share. */
  readonly prefix: number
  /** Script in `machines/` that is its first process. */
  readonly script: string
  /** The cluster's directory; the machine's log is below it. */
  readonly directory: string
  readonly environment: Readonly<Record<string, string>>
}

export interface Machine {
  readonly name: string
  readonly address: string
  /** Runs a command inside. */
  readonly run: (...command: ReadonlyArray<string>) => Effect.Effect<string, Command.CommandFailed>
  /** Runs `ip` in its network. */
  readonly ip: (...args: ReadonlyArray<string>) => Effect.Effect<string, Command.CommandFailed>
  /** Ends the machine at once with everything that runs in it, as a loss of power does. */
  readonly kill: Effect.Effect<void>
}

const attach = Effect.fnUntraced(function*(name: string, address: string, prefix: number) {
  yield* NetworkNamespace.ip("netns", "add", name)
  // The kernel takes 15 characters.
  yield* NetworkNamespace.link({ name: `to-${name}`.slice(0, 15), bridge, namespace: name, inside: "eth0" })
  yield* NetworkNamespace.up("lo", name)
  yield* NetworkNamespace.addAddress(`${address}/${prefix}`, "eth0", name)
  yield* NetworkNamespace.up("eth0", name)
})

/** Removes the cgroups that a machine leaves, its pods' among them, once the last process is out of them. */
const removeCgroups = (name: string) =>
  Effect.try(() => {
    for (const top of ["/sys/fs/cgroup", ...globSync("/sys/fs/cgroup/*")].map((path) => join(path, `spegel-${name}`))) {
      if (!existsSync(top)) continue
      // The longest path first: only an empty directory can be removed.
      for (const path of [top, ...globSync(`${top}/**/`)].toSorted((a, b) => b.length - a.length)) {
        if (existsSync(path)) rmdirSync(path)
      }
    }
  }).pipe(Effect.retry({ schedule: Schedule.spaced("100 millis"), times: 50 }), Effect.ignore)

export const start = Effect.fnUntraced(function*(
  { address, directory, environment, name, prefix, script }: MachineOptions
): Effect.fn.Return<Machine, Command.CommandFailed, Scope.Scope> {
  yield* attach(name, address, prefix)
  yield* Effect.promise(() => mkdir(join(directory, name), { recursive: true }))
  const log = openSync(join(directory, name, "machine.log"), "a")
  yield* Effect.addFinalizer(() => removeCgroups(name))
  const child = yield* Subprocess.start(join(scripts, "machine.sh"), [name, join(scripts, script)], {
    stdio: ["ignore", log, log],
    env: { ...process.env, RUN: directory, NAME: name, ADDRESS: address, ...environment }
  })

  /** The id of the machine's first process outside of it: the only child of the one that was started. */
  const first = () => readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, "utf8").trim()
  return {
    name,
    address,
    run: (...command) => Effect.suspend(() => Command.run("nsenter", ["-t", first(), "-a", "--", ...command])),
    ip: (...args) => NetworkNamespace.ip("-n", name, ...args),
    kill: Subprocess.kill(child)
  }
})
