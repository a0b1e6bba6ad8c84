/** Measures the memory of a bundled daemon as a member of a network. Needs `npm run bundle`. */
import { spawn, spawnSync } from "node:child_process"
import { existsSync } from "node:fs"
import { mkdtemp, readFile, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import type { Bar } from "../Bar.ts"
import { metric } from "../bytes/load/Processes.ts"
import { sleep, until } from "../Waiting.ts"
import * as Cluster from "./Cluster.ts"

const bundle = fileURLToPath(new URL("../../../spegel/bundle/main.js", import.meta.url))

const peers = 30
const recordsHeld = 20_000
/** 20 of the 31 nodes store each record. */
const keysToProvide = Math.ceil(recordsHeld * 1.6)

export const memory = async (port: number): Promise<ReadonlyArray<Bar>> => {
  if (!existsSync(bundle)) throw new Error("there is no bundle: run npm run bundle first")
  const directory = await mkdtemp(join(tmpdir(), "spegel-bench-"))
  const cluster = await Cluster.start({
    implementation: "spegel-ts",
    addresses: Cluster.loopbackAddresses(peers),
    port,
    nodesPerProcess: 10
  })
  const environment = { ...process.env, ...Cluster.imageEnvironment, NODE_COMPILE_CACHE: join(directory, "compiled") }
  // The image contains compiled code. One run fills the cache with it.
  spawnSync(process.execPath, [...Cluster.imageFlags, bundle, "version"], { env: environment })
  const metrics = `http://127.9.1.1:${port + 2}`
  const daemon = spawn(process.execPath, [
    ...Cluster.imageFlags,
    bundle,
    "registry",
    `--router-addr=127.9.1.1:${port}`,
    `--registry-addr=127.9.1.1:${port + 1}`,
    `--metrics-addr=127.9.1.1:${port + 2}`,
    `--data-dir=${directory}`,
    `--containerd-sock=${directory}/none`,
    "--bootstrap-kind=static",
    `--static-bootstrap-peers=127.9.0.1:${port}`
  ], { stdio: "ignore", env: environment })
  try {
    await until(async () => await metric(metrics, "spegel_router_peers") >= peers, 60_000)
    await cluster.nodes[3]?.provide(Array.from({ length: keysToProvide }, (_, index) => `memory:${index}`))
    await until(async () => await metric(metrics, "spegel_router_records") >= recordsHeld, 60_000)
    await sleep(40_000)
    const records = await metric(metrics, "spegel_router_records")
    const status = await readFile(`/proc/${daemon.pid}/status`, "utf8")
    const rssMiB = Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1] ?? 0) / 1024
    return [
      { name: `RSS of the daemon with ${peers} peers and ${records} records`, value: rssMiB, bound: 110, unit: "MiB" }
    ]
  } finally {
    daemon.kill("SIGKILL")
    await cluster.stop()
    await rm(directory, { recursive: true, force: true })
  }
}
