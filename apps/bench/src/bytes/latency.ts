/** How soon the first byte comes of a 1 KiB blob that a peer on another host holds, and a 404 if nobody holds it. */
import { createHash } from "node:crypto"
import * as Bar from "../Bar.ts"
import { percentile } from "../Statistics.ts"
import { untilDone } from "../Waiting.ts"
import { Asker } from "./load/Asker.ts"
import * as Content from "./load/Content.ts"
import type { Hosts } from "./load/Network.ts"
import * as Servers from "./load/Servers.ts"
import { query, withServers } from "./serve.ts"

export interface Latencies {
  readonly name: string
  readonly count: number
  /** Answers with another status than expected; `count` is without them. */
  readonly others: number
  readonly p50: number
  readonly p99: number
}

export const blobs = 200
export const warmUps = 100
const firstMillis = 1000
/** More blobs than can be asked for in that time. */
const firstBlobs = 1000

const textOf = (url: string) => fetch(url).then(async (response) => response.ok ? await response.text() : "", () => "")

export const waitFor = (url: string, isDone: (text: string) => boolean) =>
  untilDone(async () => isDone(await textOf(url)), 30_000, `${url} does not answer as it should`)

/** Yields paths until the time is over. */
function* within(millis: number, paths: ReadonlyArray<string>): Generator<string> {
  const begun = performance.now()
  for (const path of paths) {
    if (performance.now() - begun > millis) return
    yield path
  }
}

/** Paths of content that nobody has. */
export const missing = (kind: "blobs" | "manifests", count: number): ReadonlyArray<string> =>
  Array.from(
    { length: count },
    (_, index) => `/v2/bench/${kind}/sha256:${createHash("sha256").update(`missing ${index}`).digest("hex")}${query}`
  )

/** Asks for one after another; answers with another status than expected are counted, and not measured. */
export const askAll = async (
  asker: Asker,
  name: string,
  paths: Iterable<string>,
  status: number
): Promise<Latencies> => {
  const millis: Array<number> = []
  let others = 0
  for (const path of paths) {
    const answer = await asker.ask(path)
    if (answer.status === status) millis.push(answer.millis)
    else others++
  }
  return { name, count: millis.length, others, p50: percentile(millis, 0.5), p99: percentile(millis, 0.99) }
}

export const latency = (
  hosts: Hosts,
  port: number
): Promise<{ readonly figures: ReadonlyArray<Latencies>; readonly bars: ReadonlyArray<Bar.Bar> }> =>
  withServers(async (directory, started) => {
    const make = async (count: number) => {
      const paths: Array<string> = []
      while (paths.length < count) paths.push((await Content.blob(directory, 1024)).path + query)
      return paths
    }
    const [early, warming, measured] = [await make(firstBlobs), await make(warmUps), await make(blobs)]
    const peer = Servers.at(hosts.far, 1, port)
    const mirror = Servers.at(hosts.near, 1, port)
    await started(Servers.spegel(directory, peer, { store: "layout" }))
    await waitFor(`http://${peer.host}:${port + 2}/metrics`, (metrics) => {
      const keys = Number(/^spegel_advertised_keys\{.*\} (\d+)$/m.exec(metrics)?.[1])
      return keys >= early.length + warming.length + measured.length
    })
    await started(Servers.spegel(directory, mirror, { store: "empty", bootstrap: peer }))
    await waitFor(`http://${mirror.host}:${port}/readyz`, (body) => body !== "")
    const asker = new Asker(mirror)
    const ask = (name: string, paths: Iterable<string>, status: number) => askAll(asker, name, paths, status)
    const first = await ask("in the first second", within(firstMillis, early), 200)
    await ask("to warm up", warming, 200)
    const figures = [
      first,
      await ask("first ask", measured, 200),
      await ask("asked again", measured, 200),
      await ask("held by nobody", missing("blobs", blobs), 404)
    ]
    asker.close()
    const [, asked, again] = figures as [Latencies, Latencies, Latencies]
    return {
      figures,
      bars: [
        { name: "first ask, p50", value: asked.p50, bound: 2.5, unit: "ms" },
        { name: "first ask, p99, of its p50", value: asked.p99 / asked.p50, bound: 3, unit: Bar.times },
        { name: "asked again, p99, of its p50", value: again.p99 / again.p50, bound: 3, unit: Bar.times }
      ]
    }
  })
