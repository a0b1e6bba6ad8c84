/** Configures a directory, or restores it, and kills its own process at a change: `KilledRun.ts DIR write|remove AT`. */
import * as MirrorConfiguration from "@spegel-ts/containerd/MirrorConfiguration"
import { Effect } from "effect"
import { options } from "./HostsFixture.ts"
import * as KilledFileSystem from "./KilledFileSystem.ts"

const [configPath = "", command = "", at = ""] = process.argv.slice(2)

if (import.meta.main) {
  const effect: Effect.Effect<unknown, Error> = command === "write"
    ? MirrorConfiguration.write(options(configPath))
    : MirrorConfiguration.remove(configPath)
  await KilledFileSystem.run(Number(at), () => Effect.runPromise(effect), () => process.kill(process.pid, "SIGKILL"))
}
