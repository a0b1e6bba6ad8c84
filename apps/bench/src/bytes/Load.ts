/** Puts a load on a server and says what it cost. */
import { connect } from "node:net"
import { sleep } from "../Waiting.ts"
import * as Processes from "./Processes.ts"
import * as Sink from "./Sink.ts"

/** Where a server answers, and the process that pays for it, if it is known. */
export interface Target {
  readonly name: string
  readonly pid: number | undefined
  readonly host: string
  readonly port: number
  /** A large blob. */
  readonly path: string
  /** A blob of 1 KiB, asked for while large ones are on their way; none where there is not one. */
  readonly smallPath: string | undefined
  /** Header lines of each request for the large blob, their ends included. */
  readonly fields: ReadonlyArray<string>
}

export interface Round {
  readonly gibPerSecond: number
  /** Undefined for a server whose process is not known. */
  readonly cpuSecondsPerGib: number | undefined
  /** Milliseconds to the first byte of each small blob. */
  readonly firstBytes: ReadonlyArray<number>
  /** CPUs that others on this machine used meanwhile. */
  readonly otherCpus: number
}

const gib = 1024 ** 3
/** Between two requests for the small blob: so few that their cost is not seen in that of the large one. */
const pauseMillis = 100

/** Asks for the small blob again and again on one connection; gives what stops it, with the times. */
const probe = ({ host, port, smallPath }: Target) => {
  const millis: Array<number> = []
  if (smallPath === undefined) return { stop: async () => millis }
  const stop = new AbortController()
  const socket = connect({ host, port, noDelay: true })
  const once = () =>
    new Promise<number>((resolve, reject) => {
      const begun = performance.now()
      let text = ""
      const onData = (chunk: Buffer) => {
        const first = text === "" ? performance.now() - begun : 0
        millis.push(...(first > 0 ? [first] : []))
        text += chunk.toString("latin1")
        const end = text.indexOf("\r\n\r\n")
        const length = Number(/^content-length: (\d+)/im.exec(text)?.[1])
        if (end === -1 || text.length < end + 4 + length) return
        socket.off("data", onData).off("close", onClose)
        if (text.startsWith("HTTP/1.1 200 ")) resolve(first)
        else reject(new Error(`the small blob: ${text.slice(0, 300)}`))
      }
      const onClose = () => reject(new Error("the connection for the small blob was closed"))
      socket.on("data", onData).once("close", onClose)
      socket.write(`GET ${smallPath} HTTP/1.1\r\nhost: mirror\r\n\r\n`)
    })
  const probing = (async () => {
    while (!stop.signal.aborted) {
      await once()
      await sleep(pauseMillis)
    }
  })()
  // Reported by `stop`.
  probing.catch(() => {})
  socket.on("error", () => {})
  return {
    stop: async () => {
      stop.abort()
      await probing.finally(() => socket.destroy())
      return millis
    }
  }
}

/** `clients` at once take the large blob `requests` times each. `others` are processes that are no strangers. */
export const run = async (
  target: Target,
  clients: number,
  requests: number,
  others: ReadonlyArray<number>
): Promise<Round> => {
  const ours = async () => {
    const pids = [...others, ...(target.pid === undefined ? [] : [target.pid]), process.pid]
    const times = await Promise.all(pids.map(Processes.cpuSeconds))
    return times.reduce((sum, seconds) => sum + seconds, 0)
  }
  const cpu = () => target.pid === undefined ? Promise.resolve(0) : Processes.cpuSeconds(target.pid)
  const begun = performance.now()
  const [cpuBefore, oursBefore, machineBefore] = [await cpu(), await ours(), await Processes.machineCpuSeconds()]
  const probing = probe(target)
  const outcome = await Sink.run({ ...target, clients, requests, bytesPerSecond: 0 })
  const firstBytes = await probing.stop()
  const [cpuAfter, oursAfter, machineAfter] = [await cpu(), await ours(), await Processes.machineCpuSeconds()]
  const elapsed = (performance.now() - begun) / 1000
  return {
    gibPerSecond: outcome.bytes / gib / outcome.seconds,
    cpuSecondsPerGib: target.pid === undefined ? undefined : (cpuAfter - cpuBefore) / (outcome.bytes / gib),
    firstBytes,
    otherCpus: Math.max(0, machineAfter - machineBefore - (oursAfter - oursBefore) - outcome.cpuSeconds) / elapsed
  }
}
