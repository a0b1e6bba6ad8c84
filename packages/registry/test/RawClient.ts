/** A client on a raw socket, which reads only as much as it is told to. */
import { Effect, type Scope } from "effect"
import { connect, type Socket } from "node:net"

export interface RawClient {
  readonly socket: Socket
  /** The status and head of the answer, once it is there. */
  readonly head: Promise<{ readonly status: number; readonly head: string }>
  /** Everything to the end of the body; fails when the connection ends before. */
  readonly body: () => Promise<Buffer>
}

export const request = (path: string, fields: ReadonlyArray<string> = []): string =>
  `${["GET " + path + " HTTP/1.1", "host: mirror", ...fields].join("\r\n")}\r\n\r\n`

/** Asks for `path` and stops reading once the head is there. */
export const open = (
  options: { readonly host: string; readonly port: number; readonly localAddress?: string },
  path: string,
  fields: ReadonlyArray<string> = []
): Effect.Effect<RawClient, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const socket = connect(options)
      let early = Buffer.alloc(0)
      let length = 0
      const head = new Promise<{ status: number; head: string }>((resolve, reject) => {
        const onData = (chunk: Buffer) => {
          early = Buffer.concat([early, chunk])
          const end = early.indexOf("\r\n\r\n")
          if (end === -1) return
          socket.off("data", onData).pause()
          const text = early.toString("latin1", 0, end)
          early = early.subarray(end + 4)
          length = Number(/^content-length: (\d+)$/im.exec(text)?.[1] ?? 0)
          resolve({ status: Number(text.slice(9, 12)), head: text })
        }
        socket.on("data", onData).on("error", reject).on("close", () => reject(new Error("closed before the head")))
      })
      head.catch(() => {})
      socket.write(request(path, fields))
      const body = async () => {
        await head
        const chunks: Array<Buffer> = [early]
        let left = length - early.length
        if (left > 0) {
          await new Promise<void>((resolve, reject) => {
            socket.on("data", (chunk: Buffer) => {
              chunks.push(chunk)
              left -= chunk.length
              if (left <= 0) resolve()
            })
            socket.on("close", () => reject(new Error(`closed ${left} bytes early`))).resume()
          })
        }
        return Buffer.concat(chunks)
      }
      return { socket, head, body }
    }),
    ({ socket }) => Effect.sync(() => socket.destroy())
  )
