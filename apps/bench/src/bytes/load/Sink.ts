/** The clients, in a process of their own, whose cost is not counted. */
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"

export interface Job {
  readonly host: string
  readonly port: number
  readonly path: string
  readonly clients: number
  /** Requests of each client, one after another. */
  readonly requests: number
  /** The most bytes per second that each client reads; 0 for no limit. */
  readonly bytesPerSecond: number
}

export interface Outcome {
  readonly bytes: number
  /** Clients that were answered 404 or 503. */
  readonly refused: number
  readonly seconds: number
  readonly cpuSeconds: number
}

const script = fileURLToPath(new URL("sink.pl", import.meta.url))

/** Runs all clients to their ends, though some may be refused. */
export const runSome = async (job: Job): Promise<Outcome> => {
  const head = `GET ${job.path} HTTP/1.1\r\nhost: mirror\r\n\r\n`
  const numbers = [job.port, job.clients, job.requests, job.bytesPerSecond].map(String)
  const { stdout } = await promisify(execFile)("perl", [script, job.host, ...numbers, head])
  return JSON.parse(stdout) as Outcome
}

/** Runs all clients to their ends; fails if one was refused. */
export const run = async (job: Job): Promise<Outcome> => {
  const outcome = await runSome(job)
  if (outcome.refused > 0) throw new Error(`${outcome.refused} of ${job.clients} clients were refused ${job.path}`)
  return outcome
}
