/** What traces cost a daemon: memory where they are exported, CPU for each request. */
import { createServer } from "node:http"
import * as http2 from "node:http2"
import type { AddressInfo } from "node:net"
import * as Content from "../bytes/load/Content.ts"
import * as Processes from "../bytes/load/Processes.ts"
import * as Requests from "../bytes/load/Requests.ts"
import * as Servers from "../bytes/load/Servers.ts"
import { query, withServers } from "../bytes/serve.ts"
import * as Image from "../Image.ts"
import { percentile } from "../Statistics.ts"
import { sleep } from "../Waiting.ts"

export interface TraceFigures {
  readonly setting: string
  /** From its start until it takes connections. */
  readonly startMillis: number
  /** Before any request. */
  readonly idleMiB: number
  /** After all of them. */
  readonly usedMiB: number
  /** CPU of a small manifest from own content, medians of the rounds. */
  readonly cpuMicrosPerRequest: number
  readonly requestsPerSecond: number
}

interface Collectors {
  readonly http: string
  readonly grpc: string
}

const everything = (protocol: string, url: string) => ({
  OTEL_EXPORTER_OTLP_ENDPOINT: url,
  OTEL_EXPORTER_OTLP_PROTOCOL: protocol,
  OTEL_BSP_MAX_QUEUE_SIZE: "65536"
})

const settings: ReadonlyArray<
  readonly [name: string, environment: (collectors: Collectors) => Readonly<Record<string, string>>]
> = [
  ["not exported", () => ({})],
  ["1 % of traces", ({ http }) => ({
    OTEL_EXPORTER_OTLP_ENDPOINT: http,
    OTEL_TRACES_SAMPLER: "parentbased_traceidratio",
    OTEL_TRACES_SAMPLER_ARG: "0.01"
  })],
  ["all, protobuf", ({ http }) => everything("http/protobuf", http)],
  ["all, JSON", ({ http }) => everything("http/json", http)],
  ["all, gRPC", ({ grpc }) => everything("grpc", grpc)]
]

const settleMillis = 5000

const listening = async (server: ReturnType<typeof createServer> | http2.Http2Server): Promise<string> => {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

/** A gRPC message of no bytes: not compressed, length 0. */
const emptyMessage = Buffer.alloc(5)

/** Collectors that accept everything and look at nothing. */
const startCollectors = async () => {
  const http = createServer((request, response) => {
    request.resume().once("end", () => response.end())
  })
  const grpc = http2.createServer().on("stream", (stream) => {
    // A daemon is killed in the end, whatever it is sending.
    stream.on("error", () => {})
    stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true })
    stream.once("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }))
    stream.resume().once("end", () => stream.end(emptyMessage))
  })
  const stop = () => {
    http.close()
    grpc.close()
  }
  return { urls: { http: await listening(http), grpc: await listening(grpc) }, stop }
}

/** Daemons with each setting, asked in turns. */
export const measure = (options: { readonly port: number; readonly rounds: number }) =>
  withServers(async (directory, started): Promise<ReadonlyArray<TraceFigures>> => {
    const manifest = await Content.manifest(directory, 1024)
    const collectors = await startCollectors()
    try {
      const daemons: Array<{
        readonly setting: string
        readonly pid: number
        readonly endpoint: Requests.Endpoint
        readonly startMillis: number
        readonly idleMiB: number
        readonly rates: Array<number>
        readonly micros: Array<number>
      }> = []
      // Before the first start, which is measured.
      Image.compiledIn(directory)
      for (const [setting, environment] of settings) {
        const address = { host: `127.8.1.${daemons.length + 1}`, port: options.port }
        const begun = performance.now()
        const { pid } = await started(Servers.spegel(directory, address, {
          store: "layout",
          environment: environment(collectors.urls)
        }))
        const startMillis = performance.now() - begun
        await sleep(settleMillis)
        const endpoint = { ...address, path: manifest.path + query }
        const idleMiB = await Processes.rssMiB(pid)
        daemons.push({ setting, pid, endpoint, startMillis, idleMiB, rates: [], micros: [] })
      }
      for (const { endpoint } of daemons) await Requests.perSecond(endpoint)
      for (let round = 0; round < options.rounds; round++) {
        for (const { endpoint, micros, pid, rates } of daemons) {
          const before = await Processes.cpuSeconds(pid)
          const rate = await Requests.perSecond(endpoint)
          micros.push((await Processes.cpuSeconds(pid) - before) / (rate * Requests.seconds) * 1e6)
          rates.push(rate)
        }
      }
      return await Promise.all(daemons.map(async ({ idleMiB, micros, pid, rates, setting, startMillis }) => ({
        setting,
        startMillis,
        idleMiB,
        usedMiB: await Processes.rssMiB(pid),
        cpuMicrosPerRequest: percentile(micros, 0.5),
        requestsPerSecond: percentile(rates, 0.5)
      })))
    } finally {
      collectors.stop()
    }
  })
