/** Measures what it costs a node to know what it holds, and to tell the network of it, by how many blobs it holds. */
import { existsSync } from "node:fs"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Bar } from "../Bar.ts"
import * as Processes from "../bytes/load/Processes.ts"
import * as Servers from "../bytes/load/Servers.ts"
import { percentile } from "../Statistics.ts"
import { sleep, until, untilDone } from "../Waiting.ts"
import * as Stores from "./Stores.ts"

export interface Figures {
  readonly store: Stores.Kind
  readonly blobs: number
  /** The holder's CPU for a new blob, without what it uses when nothing happens. */
  readonly cpuMillisPerBlob: number
  /** From the moment a blob is held until another node has found it. */
  readonly visibleMillis: { readonly p50: number; readonly max: number }
  /** From the start of the holder's process until another node has found all that it holds. */
  readonly restartMillis: number
  readonly rssMiB: number
  /** The same of a node that holds nothing. */
  readonly emptyRssMiB: number
  /** Share of a core that the holder uses when nothing happens. */
  readonly idlePercent: number
  /** What others on the machine used meanwhile, in CPUs: with busy neighbours everything costs more. */
  readonly otherCpus: number
}

const blobsAdded = 50
const blobsWatched = 20
/** After a start so many of the blobs are looked for. */
const samples = 100
const settleMillis = 20_000
const idleMillis = 20_000
/** Between two blobs. */
const pauseMillis = 25
const findLimitMillis = 60_000

const holderHost = "127.8.0.1"
const askerHost = "127.8.0.2"

const start = (directory: string, host: string, port: number, peer: string, store: ReadonlyArray<string>) =>
  Servers.spegel(directory, { host, port }, {
    store,
    bootstrap: { host: peer, port },
    flags: Servers.patient
  })

/** Ends a daemon as a stop of its pod does: it says goodbye, and its peers forget what it held. */
const stop = async ({ pid }: Processes.Running) => {
  process.kill(pid, "SIGTERM")
  await until(async () => !existsSync(`/proc/${pid}`), findLimitMillis)
}

/** Whether another node finds a blob. */
const findsAt = (url: string) => (digest: string) => async () => {
  const path = `${url}/v2/bench/blobs/${digest}?ns=registry.example`
  return (await fetch(path, { method: "HEAD" }).catch(() => undefined))?.status === 200
}

/** What a holder costs when nothing happens. */
const atRest = async ({ pid }: Processes.Running) => {
  await sleep(settleMillis)
  const before = await Processes.cpuSeconds(pid)
  const machineBefore = await Processes.machineCpuSeconds()
  await sleep(idleMillis)
  const cores = (await Processes.cpuSeconds(pid) - before) / (idleMillis / 1000)
  const otherCpus = (await Processes.machineCpuSeconds() - machineBefore) / (idleMillis / 1000) - cores
  return { cores, otherCpus, rssMiB: await Processes.rssMiB(pid) }
}

const addedCpu = async ({ pid }: Processes.Running, store: Stores.Store, idleCores: number) => {
  const before = await Processes.cpuSeconds(pid)
  const begun = performance.now()
  for (let at = 0; at < blobsAdded; at++) {
    await store.add(`added ${at}`)
    await sleep(pauseMillis)
  }
  await sleep(1000)
  const seconds = (performance.now() - begun) / 1000
  return (await Processes.cpuSeconds(pid) - before - idleCores * seconds) * 1000 / blobsAdded
}

export const measure = async (
  options: {
    readonly port: number
    readonly stores: ReadonlyArray<Stores.Kind>
    readonly counts: ReadonlyArray<number>
    readonly onFigures: (figures: Figures) => void
  }
): Promise<void> => {
  const { port } = options
  const directory = await mkdtemp(join(tmpdir(), "spegel-bench-"))
  const running = new Set<() => Promise<void>>()
  const closing = <A>(value: A, close: () => Promise<void>): A => {
    running.add(close)
    return value
  }
  const finds = findsAt(`http://${askerHost}:${port}`)
  /** Waits until the other node finds a blob; gives how long that took. */
  const untilFound = (digest: string): Promise<number> =>
    untilDone(finds(digest), findLimitMillis, `the other node does not find ${digest}`)
  /** The same for some of a store's blobs: one after another they would keep both nodes busy. */
  const untilAllFound = async (held: ReadonlyArray<string>) => {
    const [first = "", ...others] = Array.from(
      { length: samples },
      (_, at) => held[Math.floor(at * held.length / samples)] ?? ""
    )
    await untilFound(first)
    await Promise.all(others.map(untilFound))
  }
  const holdings = async (kind: Stores.Kind, count: number) => {
    const made = await Stores.make(kind, join(directory, `${kind}-${count}`), count)
    closing(made, made.store.close)
    return made
  }
  const holderOf = async ({ flags }: Stores.Store) => {
    const holder = await start(directory, holderHost, port, askerHost, flags)
    return closing(holder, holder.stop)
  }

  const one = async (kind: Stores.Kind, count: number, emptyRssMiB: number): Promise<Figures> => {
    const { held, store } = await holdings(kind, count)
    const first = await holderOf(store)
    await untilAllFound(held)
    const { cores, otherCpus, rssMiB } = await atRest(first)
    const cpuMillisPerBlob = await addedCpu(first, store, cores)
    const visible: Array<number> = []
    for (let at = 0; at < blobsWatched; at++) visible.push(await untilFound(await store.add(`watched ${at}`)))
    await stop(first)

    const all = count + blobsAdded + blobsWatched
    const begun = performance.now()
    const second = await holderOf(store)
    await untilAllFound(held)
    const restartMillis = performance.now() - begun
    const records = () => Processes.metric(`http://${askerHost}:${port + 2}`, "spegel_router_records")
    await untilDone(async () => await records() === all, findLimitMillis, `the other node has not ${all} records`)
    await stop(second)
    await store.close()
    const figures = {
      store: kind,
      blobs: count,
      cpuMillisPerBlob,
      visibleMillis: { p50: percentile(visible, 0.5), max: Math.max(...visible) },
      restartMillis,
      rssMiB,
      emptyRssMiB,
      idlePercent: cores * 100,
      otherCpus
    }
    options.onFigures(figures)
    return figures
  }

  try {
    await Stores.make("layout", join(directory, "asker"), 0)
    const asker = await start(directory, askerHost, port, holderHost, [
      `--store=oci-layout:${join(directory, "asker")}`
    ])
    closing(asker, asker.stop)
    for (const kind of options.stores) {
      const { store } = await holdings(kind, 0)
      const empty = await holderOf(store)
      const { rssMiB } = await atRest(empty)
      await stop(empty)
      await store.close()
      for (const count of options.counts) await one(kind, count, rssMiB)
    }
  } finally {
    await Promise.all([...running].map((close) => close()))
    await rm(directory, { recursive: true, force: true, maxRetries: 5 })
  }
}

/** What a node with `blobs` blobs must keep. */
export const bars = (figures: Figures): ReadonlyArray<Bar> => {
  const { blobs, cpuMillisPerBlob, emptyRssMiB, idlePercent, restartMillis, rssMiB, store, visibleMillis } = figures
  const bar = (name: string, value: number, bound: number, unit: string) => ({
    name: `${store}, ${blobs} blobs held: ${name}`,
    value,
    bound,
    unit
  })
  return [
    bar("CPU of the holder for a new one", cpuMillisPerBlob, 1, "ms"),
    bar("a new one is found by another node", visibleMillis.max, 1000, "ms"),
    bar("all are found after a restart", restartMillis, 3000, "ms"),
    bar("memory beyond a node without blobs", rssMiB - emptyRssMiB, 16, "MiB"),
    bar("CPU when nothing happens", idlePercent, 0.5, "%")
  ]
}
