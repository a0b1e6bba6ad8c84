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
  /** That of all servers that run: of a relay's peer too. */
  readonly serversCpuSecondsPerGib: number
  /** CPUs that strangers on this machine used meanwhile. */
  readonly otherCpus: number
}

const gib = 1024 ** 3
/** Before each request for the small blob. */
const pauseMillis = 50

/**
 * Asks for the small blob again and again on one connection, the first time after a pause, so that it meets the load and
 * not its start, in which this process is busy; gives what stops it, with the times.
 */
const probe = ({ host, port }: Target, smallPath: string) => {
  const millis: Array<number> = []
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
    for (;;) {
      await sleep(pauseMillis)
      if (stop.signal.aborted) return
      await once()
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

/** `clients` at once take the large blob `requests` times each. `servers` are all that run, the target too. */
export const run = async (
  target: Target,
  clients: number,
  requests: number,
  servers: ReadonlyArray<number>
): Promise<Round> => {
  const times = async () => ({
    target: target.pid === undefined ? 0 : await Processes.cpuSeconds(target.pid),
    servers: (await Promise.all(servers.map(Processes.cpuSeconds))).reduce((sum, seconds) => sum + seconds, 0),
    own: await Processes.cpuSeconds(process.pid),
    machine: await Processes.machineCpuSeconds()
  })
  const begun = performance.now()
  const before = await times()
  const outcome = await Sink.run({ ...target, clients, requests, bytesPerSecond: 0 })
  const after = await times()
  const elapsed = (performance.now() - begun) / 1000
  const gibs = outcome.bytes / gib
  const spent = (of: keyof typeof after) => after[of] - before[of]
  const others = spent("machine") - spent("servers") - spent("own") - outcome.cpuSeconds
  return {
    gibPerSecond: gibs / outcome.seconds,
    cpuSecondsPerGib: target.pid === undefined ? undefined : spent("target") / gibs,
    serversCpuSecondsPerGib: spent("servers") / gibs,
    otherCpus: Math.max(0, others) / elapsed
  }
}

/**
 * Milliseconds to the first byte of each small blob that is asked for under such a load. It is not measured with the cost
 * of a byte: small requests have theirs.
 */
export const firstBytes = async (
  target: Target,
  smallPath: string,
  clients: number,
  requests: number
): Promise<ReadonlyArray<number>> => {
  const probing = probe(target, smallPath)
  await Sink.run({ ...target, clients, requests, bytesPerSecond: 0 })
  return probing.stop()
}
