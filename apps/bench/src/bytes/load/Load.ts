/** Puts a load on a server and measures its cost. */
import { sleep } from "../../Waiting.ts"
import { Asker } from "./Asker.ts"
import * as Processes from "./Processes.ts"
import * as Sink from "./Sink.ts"

/** The address of a server, and its process if it is known. */
export interface Target {
  readonly name: string
  readonly pid: number | undefined
  readonly host: string
  readonly port: number
  /** A large blob. */
  readonly path: string
  /** A blob of 1 KiB; undefined if the server has none. */
  readonly smallPath: string | undefined
}

export interface Round {
  readonly gibPerSecond: number
  /** Undefined for a server whose process is not known. */
  readonly cpuSecondsPerGib: number | undefined
  /** CPU seconds of the peer that the bytes come from; undefined without a peer. */
  readonly peerCpuSecondsPerGib: number | undefined
  /** CPUs that other programs on this machine used meanwhile. */
  readonly otherCpus: number
}

const gib = 1024 ** 3
/** The pause before each request for the small blob, so that it meets the load and not its start, when this process is busy. */
const pauseMillis = 50
const idleRequests = 50

/** `clients` at once take the large blob `requests` times each. */
export const run = async (
  target: Target,
  clients: number,
  requests: number,
  peer: number | undefined
): Promise<Round> => {
  const secondsOf = (pid: number | undefined) => pid === undefined ? 0 : Processes.cpuSeconds(pid)
  const times = async () => ({
    target: await secondsOf(target.pid),
    peer: await secondsOf(peer),
    own: await secondsOf(process.pid),
    machine: await Processes.machineCpuSeconds()
  })
  const begun = performance.now()
  const before = await times()
  const outcome = await Sink.run({ ...target, clients, requests, bytesPerSecond: 0 })
  const after = await times()
  const elapsed = (performance.now() - begun) / 1000
  const gibs = outcome.bytes / gib
  const spent = (of: keyof typeof after) => after[of] - before[of]
  const others = spent("machine") - spent("target") - spent("peer") - spent("own") - outcome.cpuSeconds
  return {
    gibPerSecond: gibs / outcome.seconds,
    cpuSecondsPerGib: target.pid === undefined ? undefined : spent("target") / gibs,
    peerCpuSecondsPerGib: peer === undefined ? undefined : spent("peer") / gibs,
    otherCpus: Math.max(0, others) / elapsed
  }
}

/** Milliseconds to the first byte of the small blob, asked for again and again until `isOver`. */
const probe = async (target: Target, smallPath: string, isOver: (asked: number) => boolean) => {
  const asker = new Asker(target)
  const millis: Array<number> = []
  try {
    for (;;) {
      await sleep(pauseMillis)
      if (isOver(millis.length)) return millis
      const answer = await asker.ask(smallPath)
      if (answer.status !== 200) throw new Error(`${target.name} answers the small blob ${answer.status}`)
      millis.push(answer.millis)
    }
  } finally {
    asker.close()
  }
}

/**
 * Milliseconds to the first byte of each small blob that is asked for under such a load, or without any. It is not
 * measured together with the cost of a byte: small requests have costs of their own.
 */
export const firstBytes = async (
  target: Target,
  smallPath: string,
  clients: number,
  requests: number
): Promise<ReadonlyArray<number>> => {
  if (clients === 0) return probe(target, smallPath, (asked) => asked >= idleRequests)
  const load = { over: false }
  const loading = Sink.run({ ...target, clients, requests, bytesPerSecond: 0 }).finally(() => load.over = true)
  const [millis] = await Promise.all([probe(target, smallPath, () => load.over), loading])
  return millis
}

/** Uses everything once: compiling and caching on first use must not be measured. */
export const warmUp = async (target: Target): Promise<void> => {
  await Sink.run({ ...target, clients: 2, requests: 4, bytesPerSecond: 0 })
  const { smallPath } = target
  if (smallPath === undefined) return
  const asker = new Asker(target)
  for (let request = 0; request < 500; request++) await asker.ask(smallPath)
  asker.close()
}
