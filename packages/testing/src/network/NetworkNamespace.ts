/**
 * Namespaces of the kernel in which a run happens: a network with nothing in it but a bridge, processes that end with
 * the first of them, and mounts that go with them. The machine outside sees no traffic, and nothing is left behind.
 */
import { Effect } from "effect"
import { spawn } from "node:child_process"
import { mkdir, mkdtemp, rmdir } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { run } from "../containerd/ContainerdDaemon.ts"

/** The network between what runs inside. */
export const bridge = "spegel"

const marker = "SPEGEL_ISOLATED_DIRECTORY"

/** Runs this program again inside, and gives its exit code there; in there it is the effect that runs. */
export const inside = <E, R>(effect: Effect.Effect<number, E, R>) =>
  Effect.suspend(() => {
    const directory = process.env[marker]
    return directory === undefined ? enter : Effect.andThen(prepare(directory), effect)
  })

const enter = Effect.acquireUseRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "spegel-isolated-"))),
  (directory) =>
    Effect.callback<number>((resume) => {
      const namespaces = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
      const child = spawn("unshare", [...namespaces, process.execPath, ...process.execArgv, ...process.argv.slice(1)], {
        stdio: "inherit",
        env: { ...process.env, [marker]: directory }
      })
      child.once("exit", (code) => resume(Effect.succeed(code ?? 1)))
      return Effect.sync(() => child.kill("SIGKILL"))
    }),
  (directory) => Effect.promise(() => rmdir(directory))
)

const prepare = Effect.fnUntraced(function*(directory: string) {
  // Writes that wait for a disk would be measured as delays of the mirror.
  yield* run("mount", "-t", "tmpfs", "-o", "size=12g,mode=0700", "spegel-isolated", directory)
  process.env["TMPDIR"] = directory
  // Where names of network namespaces are kept.
  yield* Effect.promise(() => mkdir("/run/netns", { recursive: true }))
  yield* run("mount", "-t", "tmpfs", "spegel-isolated", "/run/netns")
  yield* run("ip", "link", "set", "lo", "up")
  yield* run("ip", "link", "add", bridge, "type", "bridge")
  yield* run("ip", "link", "set", bridge, "up")
})
