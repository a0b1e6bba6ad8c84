/** Configures a directory, or restores it, and kills its own process at a change: `KilledRun.ts DIR write|remove AT`. */
import * as MirrorConfiguration from "@spegel-ts/containerd/MirrorConfiguration"
import { Effect, Option } from "effect"
import * as KilledFileSystem from "./KilledFileSystem.ts"

const [configPath = "", command = "", at = ""] = process.argv.slice(2)

export const write = (configPath: string) =>
  MirrorConfiguration.write({
    configPath,
    mirroredRegistries: [],
    mirrorTargets: ["http://127.0.0.1:5000"],
    tagResolution: "mirror",
    prependExisting: false,
    basicAuth: Option.none()
  })

if (import.meta.main) {
  const effect: Effect.Effect<unknown, Error> = command === "write"
    ? write(configPath)
    : MirrorConfiguration.remove(configPath)
  await KilledFileSystem.run(Number(at), () => Effect.runPromise(effect), () => process.kill(process.pid, "SIGKILL"))
}
