/** How much memory the bootstrap kind `kubernetes` adds to a daemon of the bundle that `npm run bundle` makes. */
import type { ApiServer } from "@spegel-ts/testing/kubernetes/ApiServer"
import { leastRoles } from "@spegel-ts/testing/kubernetes/Field"
import { Effect } from "effect"
import { spawn } from "node:child_process"
import { existsSync } from "node:fs"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Bar } from "./Bar.ts"
import { rssMiB } from "./bytes/load/Processes.ts"
import * as Image from "./Image.ts"
import { sleep } from "./Waiting.ts"

const leaseName = "memory"
/** By then a lone daemon leads, has renewed often, and has freed what its start took. */
const settledMillis = 25_000

/** MiB of a daemon that has settled. */
const residentOf = async (port: number, flags: ReadonlyArray<string>): Promise<number> => {
  const directory = await mkdtemp(join(tmpdir(), "spegel-bench-"))
  const environment = { ...process.env, ...Image.compiledIn(directory) }
  const run = [
    ...Image.flags,
    Image.bundle,
    "registry",
    `--data-dir=${directory}`,
    `--containerd-sock=${directory}/none`
  ]
  const listen = ["router", "registry", "metrics"].map((name, index) => `--${name}-addr=127.9.2.1:${port + index}`)
  const daemon = spawn(process.execPath, [...run, ...listen, ...flags], { stdio: "ignore", env: environment })
  try {
    await sleep(settledMillis)
    return await rssMiB(daemon.pid ?? 0)
  } finally {
    daemon.kill("SIGKILL")
    await rm(directory, { recursive: true, force: true })
  }
}

/** Measures a daemon without the kind, then one that leads. Measures nothing where there is no bundle. */
export const electionMemory = (server: ApiServer, port: number): Effect.Effect<ReadonlyArray<Bar>> =>
  Effect.gen(function*() {
    if (!existsSync(Image.bundle)) return []
    server.roles.set("memory", leastRoles(leaseName))
    const kubeconfig = yield* server.kubeconfig("memory")
    const measure = (...flags: ReadonlyArray<string>) => Effect.promise(() => residentOf(port, flags))
    const without = yield* measure()
    const leader = yield* measure(
      "--bootstrap-kind=kubernetes",
      `--kubeconfig-path=${kubeconfig}`,
      `--leader-election-name=${leaseName}`
    )
    return [
      { name: "RSS of a daemon that leads", value: leader, bound: 110, unit: "MiB" },
      { name: "of it by the kind kubernetes", value: leader - without, bound: 20, unit: "MiB" }
    ]
  })
