/**
 * A registry in a process of its own: serves the images of a layout, and counts. `node LayoutRegistryMain.ts ADDRESS PORT LAYOUT SHAPE`,
 * with the JSON of a `Shape`.
 */
import { once } from "node:events"
import { createReadStream } from "node:fs"
import { readFile, stat } from "node:fs/promises"
import { createServer, type IncomingMessage, type ServerResponse } from "node:http"
import { join } from "node:path"
import { pipeline } from "node:stream/promises"
import { setTimeout as sleep } from "node:timers/promises"
import type { Counts, Shape } from "./LayoutRegistry.ts"
import * as Pace from "./Pace.ts"

const [address = "", port = "", layout = "", firstShape = ""] = process.argv.slice(2)
let shape: Shape = {}
let pace = Pace.make(Infinity)
let counts: Counts = { blobBytes: 0, manifestBytes: 0, manifestGets: 0, byAddress: {} }
/** The bodies on their way, by the address that they go to. */
const sending = new Map<ServerResponse, string>()
const stalled = new Set<ServerResponse>()
let refused = new Set<string>()

const reshape = (next: Shape) => {
  shape = next
  pace = Pace.make(next.bytesPerSecond ?? Infinity)
}

const pathOf = (digest: string) => join(layout, "blobs", digest.replace(":", "/"))

interface Entry {
  readonly digest: string
  readonly annotations?: Readonly<Record<string, string>>
}

const digestOfTag = async (tag: string): Promise<string> => {
  const index = JSON.parse(await readFile(join(layout, "index.json"), "utf8")) as { readonly manifests: Array<Entry> }
  const found = index.manifests.find(({ annotations = {} }) =>
    Object.values(annotations).some((name) => name.endsWith(`:${tag}`))
  )
  return found?.digest ?? ""
}

const count = (client: string, bytes: number, kind: "blobBytes" | "manifestBytes") => {
  const ofClient = (counts.byAddress[client] ?? 0) + bytes
  counts = { ...counts, [kind]: counts[kind] + bytes, byAddress: { ...counts.byAddress, [client]: ofClient } }
}

const manifest = async (reference: string, { method, socket }: IncomingMessage, response: ServerResponse) => {
  const digest = reference.startsWith("sha256:") ? reference : await digestOfTag(reference)
  const bytes = await readFile(pathOf(digest))
  if (method === "GET") {
    counts = { ...counts, manifestGets: counts.manifestGets + 1 }
    count(socket.remoteAddress ?? "", bytes.length, "manifestBytes")
  }
  response.writeHead(200, {
    "content-type": "application/vnd.oci.image.manifest.v1+json",
    "content-length": bytes.length,
    "docker-content-digest": digest
  }).end(method === "HEAD" ? undefined : bytes)
}

/** Passes a body on at the pace of the link. */
const paced = (response: ServerResponse, client: string) =>
  async function*(body: AsyncIterable<Buffer>) {
    for await (const bytes of body) {
      const wait = pace.take(bytes.length, performance.now())
      if (wait > 0) await sleep(wait)
      if (stalled.has(response)) await once(response, "close")
      count(client, bytes.length, "blobBytes")
      yield bytes
    }
  }

const blob = async (digest: string, { headers, method, socket }: IncomingMessage, response: ServerResponse) => {
  const { size } = await stat(pathOf(digest))
  const start = Number(/^bytes=([0-9]+)-/.exec(headers.range ?? "")?.[1] ?? 0)
  response.writeHead(headers.range === undefined ? 200 : 206, {
    "content-type": "application/octet-stream",
    "content-length": size - start,
    ...(headers.range === undefined ? {} : { "content-range": `bytes ${start}-${size - 1}/${size}` })
  })
  if (method === "HEAD") return void response.end()
  await sleep(shape.firstByteMillis ?? 0)
  const client = socket.remoteAddress ?? ""
  sending.set(response, client)
  response.on("close", () => {
    sending.delete(response)
    stalled.delete(response)
  })
  // A client may go away in the middle.
  await pipeline(createReadStream(pathOf(digest), { start }), paced(response, client), response).catch(() => undefined)
}

const answer = async (incoming: IncomingMessage, response: ServerResponse) => {
  const { socket, url = "" } = incoming
  const [, command, argument = ""] = /^\/(stall|refuse|shape)\/(.*)$/.exec(url) ?? []
  if (command === "stall") { for (const [body, client] of sending) if (client === argument) stalled.add(body) }
  if (command === "refuse") refused = new Set(argument.split(","))
  if (command === "shape") reshape(JSON.parse(decodeURIComponent(argument)) as Shape)
  if (command !== undefined) return void response.end()
  if (url === "/counts") return void response.end(JSON.stringify(counts))
  if (refused.has(socket.remoteAddress ?? "")) return void response.writeHead(401).end()
  if (shape.latencyMillis !== undefined) await sleep(shape.latencyMillis)
  const [, kind, reference = ""] = /^\/v2\/.+\/(manifests|blobs)\/([^/?]+)/.exec(url) ?? []
  if (kind === "manifests") return manifest(reference, incoming, response)
  if (kind === "blobs") return blob(reference, incoming, response)
  response.writeHead(url.startsWith("/v2/") ? 200 : 404).end()
}

reshape(JSON.parse(firstShape) as Shape)
createServer((incoming, response) => {
  answer(incoming, response).catch(() => response.headersSent ? response.destroy() : response.writeHead(404).end())
}).listen(Number(port), address)
