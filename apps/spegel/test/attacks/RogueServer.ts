/** The HTTP server of a rogue: it answers as it likes, with the proof of the cluster key if it has that, and notes what it is asked. */
import type { KeyRing } from "@spegel-ts/cluster-key/KeyRing"
import * as Digest from "@spegel-ts/oci/Digest"
import * as MediaType from "@spegel-ts/oci/MediaType"
import * as AnswerProof from "@spegel-ts/registry/internal/auth/AnswerProof"
import * as RequestProof from "@spegel-ts/registry/internal/auth/RequestProof"
import * as LocalServer from "@spegel-ts/testing/network/LocalServer"
import { Effect } from "effect"
import { createServer, type IncomingMessage, type OutgoingHttpHeaders, type ServerResponse } from "node:http"
import type { TestImage } from "./AttackedCluster.ts"

/** A request to a rogue. */
export interface Asked {
  readonly method: string
  readonly path: string
  /** The digest or the tag at the path's end. */
  readonly reference: string
  readonly headers: IncomingMessage["headers"]
  /** Writes the head of an answer, proved if the rogue has the key. */
  readonly head: (status: number, headers: Readonly<Record<string, string>>) => ServerResponse
}

export type Behaviour = (asked: Asked) => void

export interface RogueServerOptions {
  readonly address: string
  /** Default: any. */
  readonly port?: number
  /** The key by which it proves its answers; undefined if it proves nothing. */
  readonly ring: KeyRing | undefined
}

/** Listens until the scope closes. */
export const start = Effect.fnUntraced(function*({ address, port, ring }: RogueServerOptions, behave: Behaviour) {
  /** The requests so far. */
  const asked: Array<Asked> = []
  const server = createServer((request, response) => {
    const path = request.url ?? ""
    const one: Asked = {
      method: request.method ?? "",
      path,
      reference: path.split("?")[0]?.split("/").at(-1) ?? "",
      headers: request.headers,
      head: (status, headers) => response.writeHead(status, proved(request, ring, status, headers))
    }
    asked.push(one)
    behave(one)
  })
  return { port: yield* LocalServer.listen(server, address, port), asked }
})

export type RogueServer = Effect.Success<ReturnType<typeof start>>

const proved = (
  { headers: { [RequestProof.proofHeader]: header } }: IncomingMessage,
  ring: KeyRing | undefined,
  status: number,
  headers: Readonly<Record<string, string>>
): OutgoingHttpHeaders => {
  const proof = typeof header === "string" ? RequestProof.parse(header) : undefined
  const key = ring?.find("registry", proof?.keyId ?? "")
  return proof === undefined || key === undefined
    ? headers
    : AnswerProof.sign({ key, nonce: proof.nonce }, status, headers)
}

export const hasNothing: Behaviour = ({ head }) => void head(404, { "content-length": "0" }).end()

/** Answers nothing, for ever. */
export const isSilent: Behaviour = () => undefined

const bodyOf = ({ head, method }: Asked, bytes: Uint8Array, type: string, digest: string) =>
  void head(200, { "content-type": type, "content-length": String(bytes.length), "docker-content-digest": digest })
    .end(method === "HEAD" ? undefined : bytes)

/** Gives the manifest of an image under every tag, and all of its blobs. */
export const givesImage = ({ config, descriptor, layer, manifest }: TestImage): Behaviour => {
  const blobs = new Map([config, layer].map((bytes) => [String(Digest.ofBytes(bytes)), bytes]))
  return (asked) => {
    const { path, reference } = asked
    const blob = blobs.get(reference)
    if (blob !== undefined) return bodyOf(asked, blob, MediaType.octetStream, reference)
    if (!path.includes("/manifests/") || (reference.includes(":") && reference !== descriptor.digest)) {
      return hasNothing(asked)
    }
    return bodyOf(asked, manifest, MediaType.imageManifest, descriptor.digest)
  }
}

/** Gives so many bytes that are wrong for every blob, under the digest that is asked for. */
export const givesWrongBytes = (size: number): Behaviour => (asked) =>
  asked.path.includes("/blobs/")
    ? bodyOf(asked, Buffer.alloc(size, 7), MediaType.octetStream, asked.reference)
    : hasNothing(asked)

/** Gives a blob, from where it is asked for on, at this many bytes per second. */
export const crawls = (blob: Uint8Array, bytesPerSecond: number): Behaviour => (asked) => {
  if (!asked.path.includes("/blobs/")) return hasNothing(asked)
  const from = Number(/^bytes=(\d+)-/.exec(asked.headers.range ?? "")?.[1] ?? 0)
  const response = asked.head(from === 0 ? 200 : 206, {
    "content-type": MediaType.octetStream,
    "content-length": String(blob.length - from),
    "docker-content-digest": asked.reference,
    ...(from === 0 ? {} : { "content-range": `bytes ${from}-${blob.length - 1}/${blob.length}` })
  })
  if (asked.method === "HEAD") return void response.end()
  let at = from
  const give = () => {
    response.write(blob.subarray(at, at += bytesPerSecond / 20))
    if (at < blob.length) return
    clearInterval(timer)
    response.end()
  }
  const timer = setInterval(give, 50)
  // Its first byte comes sooner than that of others.
  give()
  response.on("close", () => clearInterval(timer))
}
