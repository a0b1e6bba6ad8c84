/** Measures what it costs a node to know its content and to advertise it, by the number of blobs. */
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
  /** The holder's CPU time for a new blob, without its CPU time when nothing happens. */
  readonly cpuMillisPerBlob: number
  /** From the moment a blob is held until another node has found it. */
  readonly visibleMillis: { readonly p50: number; readonly max: number }
  /** From the start of the holder's process until another node has found all that it holds. */
  readonly restartMillis: number
  readonly rssMiB: number
  /** The memory of a node that holds nothing. */
  readonly emptyRssMiB: number
  /** Share of a core that the holder uses when nothing happens. */
  readonly idlePercent: number
  /** The CPUs that other programs on the machine used meanwhile: with busy neighbours everything costs more. */
  readonly otherCpus: number
}

const blobsAdded = 50
const blobsWatched = 20
/** How many blobs are looked for after a start. */
const samples = 100
const settleMillis = 20_000
const idleMillis = 20_000
/** The pause between two blobs. */
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

/** Ends a daemon as Kubernetes stops its pod: it says goodbye, and its peers forget what it held. */
const stop = async ({ pid }: Processes.Running) => {
  process.kill(pid, "SIGTERM")
  await until(async () => !existsSync(`/proc/${pid}`), findLimitMillis)
}

/** Whether another node finds a blob. */
const findsAt = (url: string) => (digest: string) => async () => {
  const path = `${url}/v2/bench/blobs/${digest}?ns=registry.example`
  return (await fetch(path, { method: "HEAD" }).catch(() => undefined))?.status === 200
}

/** Measures a holder when nothing happens. */
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

export interface MeasureOptions {
  /** The first of three ports. */
  readonly port: number
  readonly stores: ReadonlyArray<Stores.Kind>
  /** Numbers of blobs. */
  readonly counts: ReadonlyArray<number>
  readonly onFigures: (figures: Figures) => void
}

/** The place of a run, and everything that has to be closed at its end. */
class Run {
  readonly directory: string
  readonly port: number
  readonly #open = new Set<() => Promise<void>>()

  constructor(directory: string, port: number) {
    this.directory = directory
    this.port = port
  }

  async holdings(kind: Stores.Kind, count: number) {
    const made = await Stores.make(kind, join(this.directory, `${kind}-${count}`), count)
    this.#open.add(made.store.close)
    return made
  }

  async node(host: string, peer: string, store: ReadonlyArray<string>) {
    const node = await start(this.directory, host, this.port, peer, store)
    this.#open.add(node.stop)
    return node
  }

  holder({ flags }: Stores.Store) {
    return this.node(holderHost, askerHost, flags)
  }

  /** Waits until the other node finds a blob; gives the milliseconds. */
  untilFound(digest: string): Promise<number> {
    const isFound = findsAt(`http://${askerHost}:${this.port}`)(digest)
    return untilDone(isFound, findLimitMillis, `the other node does not find ${digest}`)
  }

  /** Waits for some of a store's blobs, after the first all at once: in turn they would keep both nodes busy. */
  async untilAllFound(held: ReadonlyArray<string>) {
    const [first = "", ...others] = Array.from(
      { length: samples },
      (_, at) => held[Math.floor(at * held.length / samples)] ?? ""
    )
    await this.untilFound(first)
    await Promise.all(others.map((digest) => this.untilFound(digest)))
  }

  async close() {
    await Promise.all([...this.#open].map((close) => close()))
    await rm(this.directory, { recursive: true, force: true, maxRetries: 5 })
  }
}

const measureStore = async (run: Run, kind: Stores.Kind, count: number, emptyRssMiB: number): Promise<Figures> => {
  const { held, store } = await run.holdings(kind, count)
  const first = await run.holder(store)
  await run.untilAllFound(held)
  const { cores, otherCpus, rssMiB } = await atRest(first)
  const cpuMillisPerBlob = await addedCpu(first, store, cores)
  const visible: Array<number> = []
  for (let at = 0; at < blobsWatched; at++) visible.push(await run.untilFound(await store.add(`watched ${at}`)))
  await stop(first)

  const all = count + blobsAdded + blobsWatched
  const begun = performance.now()
  const second = await run.holder(store)
  await run.untilAllFound(held)
  const restartMillis = performance.now() - begun
  const records = () => Processes.metric(`http://${askerHost}:${run.port + 2}`, "spegel_router_records")
  await untilDone(async () => await records() === all, findLimitMillis, `the other node has not ${all} records`)
  await stop(second)
  await store.close()
  return {
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
}

/** The memory of a holder without blobs. */
const measureEmpty = async (run: Run, kind: Stores.Kind): Promise<number> => {
  const { store } = await run.holdings(kind, 0)
  const empty = await run.holder(store)
  const { rssMiB } = await atRest(empty)
  await stop(empty)
  await store.close()
  return rssMiB
}

export const measure = async ({ counts, onFigures, port, stores }: MeasureOptions): Promise<void> => {
  const run = new Run(await mkdtemp(join(tmpdir(), "spegel-bench-")), port)
  try {
    const asker = join(run.directory, "asker")
    await Stores.make("layout", asker, 0)
    await run.node(askerHost, holderHost, [`--store=oci-layout:${asker}`])
    for (const kind of stores) {
      const emptyRssMiB = await measureEmpty(run, kind)
      for (const count of counts) onFigures(await measureStore(run, kind, count, emptyRssMiB))
    }
  } finally {
    await run.close()
  }
}

/** The bars that a node has to meet. */
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
