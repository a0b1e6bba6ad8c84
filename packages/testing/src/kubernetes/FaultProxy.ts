/** A proxy between candidates and an API server that causes faults. Each candidate has a port of its own: its way. */
import { Effect } from "effect"
import { readFile } from "node:fs/promises"
import { createServer, type IncomingMessage, type ServerResponse } from "node:http"
import { Agent, request } from "node:https"
import { buffer } from "node:stream/consumers"
import { setTimeout as sleep } from "node:timers/promises"
import { listen } from "../network/LocalServer.ts"

/** The faults of one candidate. They may change during a request. */
export interface Faults {
  /** `refused`: connections are reset. `silent`: requests are swallowed, as by a network that drops packets. */
  cut: "no" | "refused" | "silent"
  /** Share of requests that the proxy answers with 500. */
  errors: number
  /** Share of requests that the proxy answers with 429. */
  throttled: number
  /** Retry-After of those answers. */
  retryAfterSeconds: number
  /** Share of requests that the server answers and whose answers are lost. */
  dropped: number
  /** The longest time that an answer is held back, in milliseconds; each is held back for a random part of it. */
  delay: number
  /** The version from which the next watch is made to start: an old one makes the server answer 410. */
  watchFrom: string | undefined
}

const noFaults = (): Faults => ({
  cut: "no",
  errors: 0,
  throttled: 0,
  retryAfterSeconds: 1,
  dropped: 0,
  delay: 0,
  watchFrom: undefined
})

/** Requests and connections of all candidates. */
export interface Counts {
  reads: number
  watches: number
  writes: number
  connections: number
  /** Connections that are open now. */
  open: number
}

/** Starts a proxy in front of `server`. It stops with the scope. */
export const start = Effect.fnUntraced(function*(server: { readonly url: string; readonly caPath: string }) {
  const ca = yield* Effect.promise(() => readFile(server.caPath))
  const agent = yield* Effect.acquireRelease(
    Effect.sync(() => new Agent({ keepAlive: true, ca })),
    (agent) => Effect.sync(() => agent.destroy())
  )
  const counts: Counts = { reads: 0, watches: 0, writes: 0, connections: 0, open: 0 }

  const handle = async (faults: Faults, incoming: IncomingMessage, outgoing: ServerResponse) => {
    const url = new URL(incoming.url ?? "/", server.url)
    const isWatch = url.searchParams.has("watch")
    if (isWatch) counts.watches++
    else if (incoming.method === "GET") counts.reads++
    else counts.writes++
    const body = await buffer(incoming)
    if (faults.cut === "refused") return incoming.socket.destroy()
    if (faults.cut === "silent") return
    if (Math.random() < faults.errors) return outgoing.writeHead(500).end("injected")
    if (Math.random() < faults.throttled) {
      return outgoing.writeHead(429, { "retry-after": String(faults.retryAfterSeconds) }).end("injected")
    }
    if (isWatch && faults.watchFrom !== undefined) {
      url.searchParams.set("resourceVersion", faults.watchFrom)
      faults.watchFrom = undefined
    }
    const sent = request(url, { method: incoming.method, headers: { ...incoming.headers, host: url.host }, agent })
    sent.on("error", () => outgoing.destroy())
    outgoing.on("close", () => sent.destroy())
    sent.on("response", (response) => {
      const pass = async () => {
        if (faults.delay > 0) await sleep(Math.random() * faults.delay)
        // The server has carried it out, and nobody learns of it.
        if (!isWatch && Math.random() < faults.dropped) return outgoing.destroy()
        outgoing.writeHead(response.statusCode ?? 502, response.headers)
        outgoing.flushHeaders()
        for await (const chunk of response) {
          if (faults.cut === "refused") return outgoing.destroy()
          if (faults.cut === "no") outgoing.write(chunk)
        }
        outgoing.end()
      }
      // A server that breaks off, or a client that is gone, ends this way too.
      void pass().catch(() => outgoing.destroy())
    })
    sent.end(body)
  }

  /** Opens a port for one candidate. Returns its `http` URL, and the faults that it causes. */
  const way = Effect.gen(function*() {
    const faults = noFaults()
    const listener = createServer((incoming, outgoing) => {
      // Fails where a client goes away while its request is read.
      void handle(faults, incoming, outgoing).catch(() => outgoing.destroy())
    })
    listener.on("connection", (socket) => {
      counts.connections++
      counts.open++
      socket.on("close", () => counts.open--)
    })
    return { url: `http://127.0.0.1:${yield* listen(listener)}`, faults }
  })
  return { counts, way }
})
