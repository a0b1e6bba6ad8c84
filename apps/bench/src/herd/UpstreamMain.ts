/** A registry in a process of its own: serves the blobs of a layout, and counts. `node UpstreamMain.ts ADDRESS PORT LAYOUT FIRST-BYTE-MS`. */
import { createReadStream, type ReadStream } from "node:fs"
import { readFile, stat } from "node:fs/promises"
import { createServer, type IncomingMessage, type ServerResponse } from "node:http"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import type { Counts } from "./HerdUpstream.ts"

const [address = "", port = "", layout = "", firstByteMillis = ""] = process.argv.slice(2)
let counts: Counts = { blobBytes: 0, manifestGets: 0, byAddress: {} }
const sending = new Map<ReadStream, string>()
let refused = new Set<string>()

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

const manifest = async (reference: string, { method }: IncomingMessage, response: ServerResponse) => {
  const digest = reference.startsWith("sha256:") ? reference : await digestOfTag(reference)
  const bytes = await readFile(pathOf(digest))
  if (method === "GET") counts = { ...counts, manifestGets: counts.manifestGets + 1 }
  response.writeHead(200, {
    "content-type": "application/vnd.oci.image.manifest.v1+json",
    "content-length": bytes.length,
    "docker-content-digest": digest
  }).end(method === "HEAD" ? undefined : bytes)
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
  await sleep(Number(firstByteMillis))
  const stream = createReadStream(pathOf(digest), { start })
  const client = socket.remoteAddress ?? ""
  sending.set(stream, client)
  stream.on("data", (chunk) => {
    const { blobBytes, byAddress } = counts
    const ofClient = (byAddress[client] ?? 0) + chunk.length
    counts = { ...counts, blobBytes: blobBytes + chunk.length, byAddress: { ...byAddress, [client]: ofClient } }
  })
  response.on("close", () => {
    sending.delete(stream)
    stream.destroy()
  })
  stream.pipe(response)
}

const answer = async (incoming: IncomingMessage, response: ServerResponse) => {
  const { socket, url = "" } = incoming
  const [, command, argument = ""] = /^\/(stall|refuse)\/(.*)$/.exec(url) ?? []
  if (command === "stall") { for (const [stream, client] of sending) if (client === argument) stream.unpipe() }
  if (command === "refuse") refused = new Set(argument.split(","))
  if (command !== undefined) return void response.end()
  if (url === "/counts") return void response.end(JSON.stringify(counts))
  if (refused.has(socket.remoteAddress ?? "")) return void response.writeHead(401).end()
  const [, kind, reference = ""] = /^\/v2\/.+\/(manifests|blobs)\/([^/?]+)/.exec(url) ?? []
  if (kind === "manifests") return manifest(reference, incoming, response)
  if (kind === "blobs") return blob(reference, incoming, response)
  response.writeHead(url.startsWith("/v2/") ? 200 : 404).end()
}

createServer((incoming, response) => {
  answer(incoming, response).catch(() => response.writeHead(404).end())
}).listen(Number(port), address)
