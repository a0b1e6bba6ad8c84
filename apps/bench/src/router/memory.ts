/** Measures the memory of a bundled daemon as a member of a network. Needs `npm run bundle`. */
import { spawn } from "node:child_process"
import { existsSync } from "node:fs"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Bar } from "../Bar.ts"
import { metric, rssMiB } from "../bytes/load/Processes.ts"
import * as Image from "../Image.ts"
import { sleep, until } from "../Waiting.ts"
import * as Cluster from "./Cluster.ts"

const peers = 30
const recordsHeld = 20_000
/** 20 of the 31 nodes store each record. */
const keysToProvide = Math.ceil(recordsHeld * 1.6)

export const memory = async (port: number): Promise<ReadonlyArray<Bar>> => {
  if (!existsSync(Image.bundle)) throw new Error("there is no bundle: run npm run bundle first")
  const directory = await mkdtemp(join(tmpdir(), "spegel-bench-"))
  const cluster = await Cluster.start({
    implementation: "spegel-ts",
    addresses: Cluster.loopbackAddresses(peers),
    port,
    nodesPerProcess: 10
  })
  const environment = { ...process.env, ...Image.compiledIn(directory) }
  const metrics = `http://127.9.1.1:${port + 2}`
  const daemon = spawn(process.execPath, [
    ...Image.flags,
    Image.bundle,
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
    const rss = await rssMiB(daemon.pid ?? 0)
    return [
      { name: `RSS of the daemon with ${peers} peers and ${records} records`, value: rss, bound: 110, unit: "MiB" }
    ]
  } finally {
    daemon.kill("SIGKILL")
    await cluster.stop()
    await rm(directory, { recursive: true, force: true })
  }
}
