/** OTLP collectors for tests: they keep the spans that they understood. */
import * as grpc from "@grpc/grpc-js"
import { Effect, type Scope } from "effect"
import { createServer, type IncomingMessage, type RequestListener } from "node:http"
import * as https from "node:https"
import { gunzipSync } from "node:zlib"
import * as LocalServer from "../network/LocalServer.ts"
import * as ReceivedSpan from "./ReceivedSpan.ts"

/** How a request is answered; `undefined` never. */
export type Answer = { readonly status: number; readonly headers?: Readonly<Record<string, string>> } | undefined

/** A server's certificate and key, and the authority that its clients' certificates must be of, as PEM. */
export interface Tls {
  readonly cert: Buffer
  readonly key: Buffer
  readonly ca: Buffer
}

/** Takes traces over HTTP, or HTTPS with client certificates, as JSON or protobuf, on loopback while the scope is open. */
export const start = Effect.fnUntraced(function*(options?: { readonly tls?: Tls }) {
  const spans: Array<ReceivedSpan.ReceivedSpan> = []
  const requests: Array<Pick<IncomingMessage, "headers" | "method" | "url">> = []
  const behaviour: { answer: () => Answer } = { answer: () => ({ status: 200 }) }
  const listener: RequestListener = (request, response) => {
    const chunks: Array<Buffer> = []
    request.on("data", (chunk: Buffer) => chunks.push(chunk)).once("end", () => {
      requests.push(request)
      const answer = behaviour.answer()
      if (answer === undefined) return
      response.writeHead(answer.status, answer.headers)
      if (answer.status === 200) {
        const sent = Buffer.concat(chunks)
        const body = request.headers["content-encoding"] === "gzip" ? gunzipSync(sent) : sent
        const isJson = request.headers["content-type"] === "application/json"
        spans.push(...(isJson ? ReceivedSpan.fromJson(body.toString()) : ReceivedSpan.fromProtobuf(body)))
      }
      response.end()
    })
  }
  const tls = options?.tls
  const server = tls === undefined
    ? createServer(listener)
    : https.createServer({ ...tls, requestCert: true, rejectUnauthorized: true }, listener)
  const port = yield* LocalServer.listen(server)
  /** How many connections are open. */
  const connections = Effect.callback<number>((resume) => {
    server.getConnections((_, count) => resume(Effect.succeed(count)))
  })
  return { url: `${tls === undefined ? "http" : "https"}://127.0.0.1:${port}`, spans, requests, behaviour, connections }
})

export interface GrpcCollector {
  readonly url: string
  readonly spans: Array<ReceivedSpan.ReceivedSpan>
  /** What came with each request, by name. */
  readonly metadata: ReadonlyArray<Readonly<Record<string, unknown>>>
}

const raw = (bytes: Buffer) => bytes
const exportMethod = {
  path: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
  requestStream: false,
  responseStream: false,
  requestSerialize: raw,
  requestDeserialize: raw,
  responseSerialize: raw,
  responseDeserialize: raw
}

/** Takes traces over gRPC, on loopback while the scope is open. */
export const startGrpc: Effect.Effect<GrpcCollector, never, Scope.Scope> = Effect.gen(function*() {
  const spans: Array<ReceivedSpan.ReceivedSpan> = []
  const metadata: Array<Readonly<Record<string, unknown>>> = []
  const server = new grpc.Server()
  const take: grpc.handleUnaryCall<Buffer, Buffer> = (call, respond) => {
    metadata.push(call.metadata.getMap())
    spans.push(...ReceivedSpan.fromProtobuf(call.request))
    respond(null, Buffer.alloc(0))
  }
  server.addService({ export: exportMethod }, { export: take })
  const port = yield* Effect.acquireRelease(
    Effect.callback<number>((resume) => {
      server.bindAsync(
        "127.0.0.1:0",
        grpc.ServerCredentials.createInsecure(),
        (_, port) => resume(Effect.succeed(port))
      )
    }),
    () => Effect.sync(() => server.forceShutdown())
  )
  return { url: `http://127.0.0.1:${port}`, spans, metadata }
})
