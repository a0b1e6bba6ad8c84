/**
 * Measures whether a slow disk delays other clients: one client reads a file that is not in the page cache, while another asks for a
 * cached blob again and again. A cgroup (version 1, as root) slows the disk down for the server.
 */
import { execFileSync } from "node:child_process"
import { mkdir, rmdir, stat, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { percentile } from "../Statistics.ts"
import { sleep } from "../Waiting.ts"
import * as Content from "./load/Content.ts"
import * as Servers from "./load/Servers.ts"
import * as Sink from "./load/Sink.ts"
import { query, withServers } from "./serve.ts"

export interface Figures {
  readonly implementation: string
  /** Milliseconds to the last byte of the cached blob. */
  readonly cached: { readonly p50: number; readonly p99: number; readonly count: number }
  readonly coldSeconds: number
}

const mib = 1024 ** 2
const coldBytes = 96 * mib
const diskBytesPerSecond = 20 * mib
/** More than is sent without the mover. */
const cachedBytes = 256 * 1024
const group = "/sys/fs/cgroup/blkio/spegel-bench"

/** Slows down the reads of a process from the disk of a file. */
const slowDown = async (pid: number, path: string): Promise<void> => {
  const { dev } = await stat(path)
  await writeFile(join(group, "blkio.throttle.read_bps_device"), `${dev >> 8}:${dev & 255} ${diskBytesPerSecond}`)
  await writeFile(join(group, "cgroup.procs"), String(pid))
}

const evict = (path: string) => {
  execFileSync("sync", [path])
  execFileSync("dd", [`if=${path}`, "iflag=nocache", "count=0", "status=none"])
}

const measure = (options: { readonly port: number }): Promise<ReadonlyArray<Figures>> =>
  withServers(async (directory, started) => {
    const large = await Content.blob(directory, coldBytes)
    const small = await Content.blob(directory, cachedBytes)
    const file = join(Content.files(directory), large.path)
    const at = (number: number) => ({ host: `127.8.3.${number}`, port: options.port })
    const daemon = (plane: Servers.Plane, number: number) =>
      [plane, at(number), Servers.spegel(directory, at(number), { store: "layout", plane })] as const
    const servers = [
      daemon("zero-copy", 1),
      daemon("portable", 2),
      ...(Servers.nginxPath === undefined
        ? []
        : [["nginx sendfile", at(3), Servers.nginxFiles(directory, at(3))] as const])
    ]
    const figures: Array<Figures> = []
    for (const [implementation, address, server] of servers) {
      await slowDown((await started(server)).pid, file)
      const url = `http://${address.host}:${address.port}${small.path}${query}`
      const take = async () => {
        const begun = performance.now()
        await (await fetch(url)).arrayBuffer()
        return performance.now() - begun
      }
      await take()
      evict(file)
      const state = { over: false }
      const reading = Sink.run({ ...address, path: large.path + query, clients: 1, requests: 1, bytesPerSecond: 0 })
        .finally(() => state.over = true)
      const millis: Array<number> = []
      while (!state.over) {
        millis.push(await take())
        await sleep(10)
      }
      const { seconds } = await reading
      const rounded = (value: number) => Number(value.toFixed(1))
      figures.push({
        implementation,
        coldSeconds: rounded(seconds),
        cached: { p50: rounded(percentile(millis, 0.5)), p99: rounded(percentile(millis, 0.99)), count: millis.length }
      })
    }
    return figures
  })

export const cold = async (options: { readonly port: number }): Promise<ReadonlyArray<Figures>> => {
  await mkdir(group, { recursive: true })
  try {
    return await measure(options)
  } finally {
    // The processes in the group have ended, which the kernel takes a moment to see.
    await sleep(200)
    await rmdir(group)
  }
}
