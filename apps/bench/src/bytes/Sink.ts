/** The clients, in a process of their own, whose cost counts for nobody. */
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"

export interface Job {
  readonly host: string
  readonly port: number
  readonly path: string
  /** Header lines of each request, their ends included. */
  readonly fields: ReadonlyArray<string>
  readonly clients: number
  /** Requests of each client, one after another. */
  readonly requests: number
  /** Bytes per second that each client takes; 0 for all that it can get. */
  readonly bytesPerSecond: number
}

export interface Outcome {
  readonly bytes: number
  readonly seconds: number
  readonly cpuSeconds: number
}

const script = fileURLToPath(new URL("sink.pl", import.meta.url))

/** Runs all clients to their ends. */
export const run = async (job: Job): Promise<Outcome> => {
  const head = `GET ${job.path} HTTP/1.1\r\nhost: mirror\r\n${job.fields.join("")}\r\n`
  const numbers = [job.port, job.clients, job.requests, job.bytesPerSecond].map(String)
  const { stdout } = await promisify(execFile)("perl", [script, job.host, ...numbers, head])
  return JSON.parse(stdout) as Outcome
}
