/** Memory of the daemon while many clients read slowly. */
import type { Bar } from "../Bar.ts"
import { sleep } from "../Waiting.ts"
import * as Content from "./Content.ts"
import * as Processes from "./Processes.ts"
import { startRelay, untilFound } from "./relay.ts"
import { query, withServers } from "./serve.ts"
import * as Servers from "./Servers.ts"
import * as Sink from "./Sink.ts"

export interface MemoryFigures {
  readonly way: "serve" | "relay"
  readonly clients: number
  readonly idleMiB: number
  readonly peakMiB: number
}

const clients = 64
const size = 64 * 1024 ** 2
const bytesPerSecond = 1_000_000
const settleMillis = 5000
const sampleMillis = 50

/** The most memory that a process has while slow clients take a blob. */
const peak = async (pid: number, job: Pick<Sink.Job, "host" | "port" | "path">): Promise<number> => {
  let most = 0
  const readers = { over: false }
  const reading = Sink.run({ ...job, fields: [], clients, requests: 1, bytesPerSecond }).finally(() => {
    readers.over = true
  })
  while (!readers.over) {
    most = Math.max(most, await Processes.rssMiB(pid))
    await sleep(sampleMillis)
  }
  await reading
  return most
}

export const memory = (
  port: number
): Promise<{ readonly figures: ReadonlyArray<MemoryFigures>; readonly bars: ReadonlyArray<Bar> }> =>
  withServers(async (directory, started) => {
    const blob = await Content.blob(directory, size)
    const path = blob.path + query
    const measure = async (
      way: MemoryFigures["way"],
      pid: number,
      address: Servers.Address
    ): Promise<MemoryFigures> => {
      await sleep(settleMillis)
      const idleMiB = await Processes.rssMiB(pid)
      return { way, clients, idleMiB, peakMiB: await peak(pid, { ...address, path }) }
    }
    const at = { host: "127.8.0.1", port }
    const holder = await started(Servers.spegel(directory, at, { store: "layout" }))
    const served = await measure("serve", holder.pid, at)
    await holder.stop()
    const relayed = Servers.nginxPath === undefined ? [] : await (async () => {
      const { mirror, relay } = await startRelay(directory, port, started)
      await untilFound(mirror, path)
      return [await measure("relay", relay.pid, mirror)]
    })()
    const figures = [served, ...relayed]
    return {
      figures,
      bars: figures.map(({ idleMiB, peakMiB, way }) => ({
        name: `memory beyond idle, ${way}, ${clients} readers of 1 MB/s`,
        value: peakMiB - idleMiB,
        bound: 40,
        unit: "MiB"
      }))
    }
  })
