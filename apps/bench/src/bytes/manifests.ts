/** How many small manifests a second, beside what bare node:http answers with the same bytes. */
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { percentile } from "../Statistics.ts"
import type { RequestJob, RequestOutcome } from "./RequestSink.ts"
import type { Address } from "./Servers.ts"

export interface ManifestFigures {
  readonly requestsPerSecond: number
  readonly bareRequestsPerSecond: number
  /** The median of the rounds' ratios. */
  readonly ratio: number
}

export type Endpoint = Address & { readonly path: string }

const sinkPath = fileURLToPath(new URL("RequestSink.ts", import.meta.url))
const connections = 32
/** How long they ask. */
export const seconds = 2

/** Requests a second of clients that ask as often as they can. */
export const once = async ({ host, path, port }: Endpoint): Promise<number> => {
  const job: RequestJob = { host, port, path, connections, seconds }
  const { stdout } = await promisify(execFile)(process.execPath, [sinkPath, JSON.stringify(job)])
  return (JSON.parse(stdout) as RequestOutcome).requestsPerSecond
}

export const manifests = async (ours: Endpoint, bare: Endpoint, rounds: number): Promise<ManifestFigures> => {
  const own: Array<number> = []
  const theirs: Array<number> = []
  await once(ours)
  await once(bare)
  for (let round = 0; round < rounds; round++) {
    own.push(await once(ours))
    theirs.push(await once(bare))
  }
  return {
    requestsPerSecond: Math.round(percentile(own, 0.5)),
    bareRequestsPerSecond: Math.round(percentile(theirs, 0.5)),
    ratio: percentile(own.map((value, round) => value / (theirs[round] ?? value)), 0.5)
  }
}
