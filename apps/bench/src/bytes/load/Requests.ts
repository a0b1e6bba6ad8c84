/** Puts a server to many small requests. */
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import type { RequestJob, RequestOutcome } from "./RequestSink.ts"
import type { Address } from "./Servers.ts"

export type Endpoint = Address & { readonly path: string }

const sinkPath = fileURLToPath(new URL("RequestSink.ts", import.meta.url))
const connections = 32
/** How long they ask. */
export const seconds = 2

/** Requests a second of clients that ask as often as they can. */
export const perSecond = async ({ host, path, port }: Endpoint): Promise<number> => {
  const job: RequestJob = { host, port, path, connections, seconds }
  const { stdout } = await promisify(execFile)(process.execPath, [sinkPath, JSON.stringify(job)])
  return (JSON.parse(stdout) as RequestOutcome).requestsPerSecond
}
