/** Passes connections on to a server, and keeps every byte of both directions. */
import { Effect } from "effect"
import { connect, createServer, type Socket } from "node:net"

/** One connection, as far as it has come. Bytes are characters of Latin-1. */
export interface Recorded {
  readonly sent: string
  readonly answered: string
}

/** Starts a proxy before the server at `to`, a URL. It ends with the scope. */
export const start = Effect.fnUntraced(function*(to: string) {
  const { hostname, port } = new URL(to)
  const connections: Array<{ readonly sent: Array<Buffer>; readonly answered: Array<Buffer> }> = []
  const sockets = new Set<Socket>()
  const server = createServer((client) => {
    const recorded = { sent: [] as Array<Buffer>, answered: [] as Array<Buffer> }
    connections.push(recorded)
    const forwarded = connect({ host: hostname, port: Number(port) })
    client.on("data", (bytes: Buffer) => recorded.sent.push(bytes))
    forwarded.on("data", (bytes: Buffer) => recorded.answered.push(bytes))
    client.pipe(forwarded).pipe(client)
    for (const [socket, other] of [[client, forwarded], [forwarded, client]] as const) {
      sockets.add(socket)
      socket.on("error", () => other.destroy()).on("close", () => {
        sockets.delete(socket)
        other.destroy()
      })
    }
  })
  const listening = yield* Effect.acquireRelease(
    Effect.callback<number>((resume) => {
      server.listen(0, "127.0.0.1", () => {
        const address = server.address()
        resume(Effect.succeed(typeof address === "object" && address !== null ? address.port : 0))
      })
    }),
    () =>
      Effect.sync(() => {
        server.close()
        for (const socket of sockets) socket.destroy()
      })
  )
  const text = (bytes: ReadonlyArray<Buffer>) => Buffer.concat(bytes).toString("latin1")
  return {
    url: `http://127.0.0.1:${listening}`,
    connections: (): ReadonlyArray<Recorded> =>
      connections.map(({ answered, sent }) => ({ sent: text(sent), answered: text(answered) })),
    /** Forgets what was said so far, on connections that are still open, too. */
    clear: () => {
      for (const { answered, sent } of connections) answered.length = sent.length = 0
    }
  }
})

export type RecordingProxy = Effect.Success<ReturnType<typeof start>>
