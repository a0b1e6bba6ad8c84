/** The memory of the daemon, and of the kernel for it, while it moves large blobs. */
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import type { Bar } from "../Bar.ts"
import { sleep } from "../Waiting.ts"
import * as Content from "./load/Content.ts"
import type { Hosts } from "./load/Network.ts"
import * as Processes from "./load/Processes.ts"
import * as Servers from "./load/Servers.ts"
import * as Sink from "./load/Sink.ts"
import { startMirror, startPeer } from "./relay.ts"
import { query, withServers } from "./serve.ts"

export interface MemoryFigures {
  readonly implementation: Servers.Plane
  readonly way: "serve" | "relay"
  readonly load: string
  readonly idleMiB: number
  readonly peakMiB: number
  /** The peak of resident memory, socket buffers and pipes together. */
  readonly withKernelMiB: number
  /** Clients that were told to ask another node. */
  readonly refused: number
}

const mib = 1024 ** 2
const planes = ["zero-copy", "portable"] as const
const fast = { load: "8 x 1 GiB", clients: 8, size: 1024 * mib, bytesPerSecond: 0 }
const slow = { load: "64 readers of 1 MB/s", clients: 64, size: 24 * mib, bytesPerSecond: 1_000_000 }
const loads = [fast, slow] as const
const settleMillis = 5000
const sampleMillis = 100

const script = fileURLToPath(new URL("load/kernelMemory.pl", import.meta.url))

/** The kernel's memory for a process; runs on the host of the process, which has its sockets. */
const kernelMiB = async (pid: number, enter: ReadonlyArray<string>): Promise<number> => {
  const [command, ...args] = [...enter, "perl", script, String(pid)]
  const { stdout } = await promisify(execFile)(command, args)
  const { pipes, sockets } = JSON.parse(stdout) as { readonly sockets: number; readonly pipes: number }
  return (pipes + sockets) / mib
}

/** The peak of a process' memory while clients read a blob. */
const peak = async (
  pid: number,
  job: Sink.Job & Pick<Servers.Address, "enter">
): Promise<Pick<MemoryFigures, "peakMiB" | "withKernelMiB" | "refused">> => {
  let [peakMiB, withKernelMiB] = [0, 0]
  const readers = { over: false }
  const reading = Sink.runSome(job).finally(() => readers.over = true)
  while (!readers.over) {
    const rss = await Processes.rssMiB(pid)
    peakMiB = Math.max(peakMiB, rss)
    withKernelMiB = Math.max(withKernelMiB, rss + await kernelMiB(pid, job.enter ?? []))
    await sleep(sampleMillis)
  }
  const { refused } = await reading
  return { peakMiB, withKernelMiB, refused }
}

export const memory = (
  hosts: Hosts,
  port: number
): Promise<{ readonly figures: ReadonlyArray<MemoryFigures>; readonly bars: ReadonlyArray<Bar> }> =>
  withServers(async (directory, started) => {
    const paths = new Map<string, string>()
    for (const { load, size } of loads) paths.set(load, (await Content.blob(directory, size)).path + query)
    const figures: Array<MemoryFigures> = []
    const measure = async (
      implementation: Servers.Plane,
      way: MemoryFigures["way"],
      pid: number,
      address: Servers.Address
    ) => {
      await sleep(settleMillis)
      const idleMiB = await Processes.rssMiB(pid)
      for (const { bytesPerSecond, clients, load } of loads) {
        const job = { ...address, path: paths.get(load) ?? "", clients, requests: 1, bytesPerSecond }
        figures.push({ implementation, way, load, idleMiB, ...await peak(pid, job) })
      }
    }
    for (const [index, plane] of planes.entries()) {
      const address = Servers.at(hosts.far, 11 + index, port)
      const { pid } = await started(Servers.spegel(directory, address, { store: "layout", plane }))
      await measure(plane, "serve", pid, address)
    }
    if (Servers.nginxPath !== undefined) {
      const { peer } = await startPeer(directory, hosts, port, started)
      for (const [index, plane] of planes.entries()) {
        const address = Servers.at(hosts.near, 1 + index, port)
        const pid = await startMirror(directory, address, { plane, peer, paths: [...paths.values()] }, started)
        await measure(plane, "relay", pid, address)
      }
    }
    const zeroCopy = figures.filter(({ implementation }) => implementation === "zero-copy")
    return {
      figures,
      bars: [
        ...zeroCopy.map(({ idleMiB, load, peakMiB, way }): Bar => ({
          name: `zero-copy, ${way}, ${load}: memory beyond idle`,
          value: peakMiB - idleMiB,
          bound: load === fast.load ? 12 : 16,
          unit: "MiB"
        })),
        ...zeroCopy.filter(({ load }) => load === slow.load).map(({ idleMiB, load, way, withKernelMiB }): Bar => ({
          name: `zero-copy, ${way}, ${load}: the same with sockets and pipes`,
          value: withKernelMiB - idleMiB,
          bound: 96,
          unit: "MiB"
        })),
        ...zeroCopy.map(({ load, refused, way }): Bar => ({
          name: `zero-copy, ${way}, ${load}: clients refused`,
          value: refused,
          bound: 0,
          unit: ""
        }))
      ]
    }
  })
