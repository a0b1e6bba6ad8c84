/** Small documents over HTTP or HTTPS, with certificates of one's own. What comes is untrusted, and bounded. */
import { Data, Effect } from "effect"
import { readFile } from "node:fs/promises"
import type { IncomingMessage } from "node:http"

/** Files in PEM, read again each time because certificates rotate. */
export interface TlsFiles {
  /** Authorities that servers' certificates are checked against, in place of the system's. */
  readonly ca?: string | undefined
  /** This node's certificate with its chain, and its key, for servers that ask for one. */
  readonly cert?: string | undefined
  readonly key?: string | undefined
}

/** There is no document; `hint` says what to check. */
export class DocumentUnavailable extends Data.TaggedError("DocumentUnavailable")<{ readonly hint: string }> {
  override get message() {
    return this.hint
  }
}

/** Some thousands of nodes, each with its id and a few addresses. */
const maxBytes = 1024 * 1024

const unavailable = (hint: string) => new DocumentUnavailable({ hint })
const reasonOf = (cause: unknown) => cause instanceof Error ? cause.message : String(cause)

/** The material of the files that are named. */
const readTls = ({ ca, cert, key }: TlsFiles) => {
  const read = (path: string | undefined) =>
    path === undefined ? Effect.succeed(undefined) : Effect.tryPromise({
      try: () => readFile(path),
      catch: (cause) => unavailable(`a certificate file cannot be read: ${reasonOf(cause)}`)
    })
  return Effect.all({ ca: read(ca), cert: read(cert), key: read(key) })
}

/** What a server needs of them; none without a certificate. */
export const serverTls = Effect.fnUntraced(function*(files: TlsFiles) {
  const { ca, cert, key } = yield* readTls(files)
  return cert === undefined || key === undefined ? undefined : { ca, cert, key }
})

const bodyOf = async (response: IncomingMessage): Promise<string> => {
  const chunks: Array<Buffer> = []
  let bytes = 0
  for await (const chunk of response as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes > maxBytes) {
      throw unavailable(
        `the answer is larger than ${maxBytes} bytes; check that --http-bootstrap-peer is a list of peers`
      )
    }
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString()
}

/** The document at a URL. Redirects are not followed. */
export const download = Effect.fnUntraced(function*(url: URL, files: TlsFiles) {
  const tls = yield* readTls(files)
  const { request } = yield* Effect.promise(() =>
    url.protocol === "https:" ? import("node:https") : import("node:http")
  )
  return yield* Effect.tryPromise({
    try: async (signal) => {
      const response = await new Promise<IncomingMessage>((resolve, reject) => {
        request(url, { ...tls, agent: false, signal, headers: { accept: "application/json" } }, resolve)
          .on("error", reject)
          .end()
      })
      if (response.statusCode === 200) return await bodyOf(response)
      response.destroy()
      throw unavailable(
        `the answer is status ${response.statusCode}; check --http-bootstrap-peer, its path is often /id`
      )
    },
    catch: (cause) =>
      cause instanceof DocumentUnavailable ? cause : unavailable(
        `cannot be reached: ${
          reasonOf(cause)
        }; check --http-bootstrap-peer and that a node listens there (--http-bootstrap-addr)`
      )
  })
})
