/** The certificates of the bootstrap kind http: for the client that asks other nodes, and for the listener that names this one. */
import { Data, Effect } from "effect"
import * as HttpClient from "effect/http/HttpClient"
import { HttpClientError, TransportError } from "effect/http/HttpClientError"
import * as HttpClientResponse from "effect/http/HttpClientResponse"
import { readFile } from "node:fs/promises"
import type { IncomingMessage } from "node:http"
import { Readable } from "node:stream"

/** Files in PEM. They are read again each time, because certificates rotate. */
export interface TlsFiles {
  /** Authorities that servers' certificates are checked against, in place of the system's. */
  readonly ca?: string | undefined
  /** This node's certificate with its chain, and its key, for servers that ask for one. */
  readonly cert?: string | undefined
  readonly key?: string | undefined
}

/** A certificate file cannot be read. A listener does not start without it; a request fails. */
export class CertificateUnreadable extends Data.TaggedError("CertificateUnreadable")<{ readonly reason: string }> {
  override get message() {
    return `a certificate file cannot be read: ${this.reason}`
  }
}

const read = ({ ca, cert, key }: TlsFiles) => {
  const file = (path: string | undefined) =>
    path === undefined ? Effect.succeed(undefined) : Effect.tryPromise({
      try: () => readFile(path),
      catch: (cause) => new CertificateUnreadable({ reason: cause instanceof Error ? cause.message : String(cause) })
    })
  return Effect.all({ ca: file(ca), cert: file(cert), key: file(key) })
}

/** What a TLS server needs; undefined without a certificate. */
export const serverTls = Effect.fnUntraced(function*(files: TlsFiles) {
  const { ca, cert, key } = yield* read(files)
  return cert === undefined || key === undefined ? undefined : { ca, cert, key }
})

/**
 * A client that trusts the authorities and presents the certificate. It opens a connection for each request, and follows no
 * redirects.
 */
export const httpClient = (files: TlsFiles): HttpClient.HttpClient =>
  HttpClient.make((request, url, signal) =>
    Effect.gen(function*() {
      const tls = yield* read(files)
      const http = yield* Effect.promise(() => url.protocol === "https:" ? import("node:https") : import("node:http"))
      const options = { ...tls, agent: false, signal, method: request.method, headers: request.headers }
      const response = yield* Effect.callback<IncomingMessage, Error>((resume) => {
        http.request(url, options, (response) => resume(Effect.succeed(response)))
          .on("error", (error) => resume(Effect.fail(error)))
          .end()
      })
      const body = Readable.toWeb(response) as ReadableStream<Uint8Array>
      return HttpClientResponse.fromWeb(request, new Response(body, { status: response.statusCode ?? 0 }))
    }).pipe(Effect.mapError((cause) => new HttpClientError({ reason: new TransportError({ request, cause }) })))
  )
