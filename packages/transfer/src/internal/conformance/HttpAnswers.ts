/** A server of node:http whose bodies move by `Transfer`, below its responses, and a client of it. */
import { Effect, type Scope } from "effect"
import { once } from "node:events"
import type { FileHandle } from "node:fs/promises"
import { Agent, createServer, type IncomingMessage, request, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import { Progress } from "../../Progress.ts"
import { Transfer } from "../../Transfer.ts"

/** Answers with the first bytes of a file. */
const answer = Effect.fnUntraced(function*(handle: FileHandle, length: number, response: ServerResponse) {
  const { move } = yield* Transfer
  const { socket } = response
  if (socket === null) return
  response.writeHead(200, { "content-length": length })
  const client = { socket, begin: () => response.flushHeaders() }
  yield* move({ source: { _tag: "File", handle, offset: 0 }, client, length, progress: new Progress() })
  response.end()
})

/** Starts a server that answers every request so; returns its port. */
export const serve = Effect.fnUntraced(function*(
  handle: FileHandle,
  length: number
): Effect.fn.Return<number, never, Transfer | Scope.Scope> {
  const run = Effect.runForkWith(yield* Effect.context<Transfer>())
  const server = yield* Effect.acquireRelease(
    Effect.promise(async () => {
      const server = createServer({ noDelay: true, keepAliveTimeout: 60_000 }, (_request, response) => {
        const begin = () => void run(answer(handle, length, response))
        // The answer before may not have given the connection back yet.
        if (response.socket === null) response.once("socket", begin)
        else begin()
      })
      server.listen(0, "127.0.0.1")
      await once(server, "listening")
      return server
    }),
    (server) =>
      Effect.promise(() => {
        server.closeAllConnections()
        return new Promise((resolve) => server.close(resolve))
      })
  )
  return (server.address() as AddressInfo).port
})

/** Asks this often, one request after another on one connection; returns the bodies, and how many connections there were. */
export const ask = (port: number, times: number) =>
  Effect.acquireUseRelease(
    Effect.sync(() => new Agent({ keepAlive: true, maxSockets: 1 })),
    (agent) =>
      Effect.promise(async () => {
        const bodies: Array<Buffer> = []
        let connections = 0
        while (bodies.length < times) {
          const asked = request({ host: "127.0.0.1", port, agent }).end()
          const [response] = await once(asked, "response") as [IncomingMessage]
          if (!asked.reusedSocket) connections++
          bodies.push(Buffer.concat(await response.toArray() as ReadonlyArray<Buffer>))
        }
        return { bodies, connections }
      }),
    (agent) => Effect.sync(() => agent.destroy())
  )
