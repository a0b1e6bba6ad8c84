import * as ContentKey from "@spegel-ts/router/ContentKey"
import type { MemoryNetwork } from "@spegel-ts/router/Router"
import { Effect } from "effect"
import { createServer, type Socket } from "node:net"

export const ns = "registry.example"

export const get = (url: string, init?: RequestInit) =>
  Effect.promise(async (signal) => {
    const response = await fetch(url, { signal, ...init })
    return {
      status: response.status,
      headers: response.headers,
      body: Buffer.from(await response.arrayBuffer().catch(() => new ArrayBuffer()))
    }
  })

/** The first error of an OCI error body. */
export const error = (body: Buffer) =>
  (JSON.parse(body.toString()) as { errors: [{ code: string; message: string }] }).errors[0]

/** A response with its length, as a registry sends it. */
export const response = (status: number, body: Buffer | string, ...fields: ReadonlyArray<string>): Buffer =>
  Buffer.concat([
    Buffer.from([`HTTP/1.1 ${status} X`, `content-length: ${body.length}`, ...fields, "", ""].join("\r\n")),
    Buffer.from(body)
  ])

/** The offset from which a request asks (`bytes=N-`). */
export const startOf = (request: string): number => Number(/^range: bytes=(\d+)-/im.exec(request)?.[1] ?? 0)

/** A holder's answer to a request for all of `whole`, or for its end. */
export const honest = (whole: Buffer, request: string): Buffer => {
  const start = startOf(request)
  return start === 0
    ? response(200, whole)
    : response(206, whole.subarray(start), `content-range: bytes ${start}-${whole.length - 1}/${whole.length}`)
}

/** Head and some bytes of a body that is longer. */
export const begun = (whole: Buffer, request: string, bytes: number): Buffer => {
  const answer = honest(whole, request)
  return answer.subarray(0, answer.indexOf("\r\n\r\n") + 4 + bytes)
}

/** A peer that holds what is advertised for it by its own word, and answers each request as `behave` says. */
export const startFalsePeer = Effect.fnUntraced(function*(
  network: MemoryNetwork,
  address: string,
  behave: (socket: Socket, request: string) => void,
  ...names: ReadonlyArray<string>
) {
  const sockets = new Set<Socket>()
  const requests: Array<string> = []
  const server = yield* Effect.acquireRelease(
    Effect.callback<ReturnType<typeof createServer>>((resume) => {
      const server = createServer((socket) => {
        sockets.add(socket)
        socket.on("error", () => {}).on("close", () => sockets.delete(socket))
        socket.on("data", (bytes) => {
          requests.push(bytes.toString("latin1"))
          behave(socket, bytes.toString("latin1"))
        })
      }).listen(0, address, () => resume(Effect.succeed(server)))
    }),
    (server) =>
      Effect.sync(() => {
        sockets.forEach((socket) => socket.destroy())
        server.close()
      })
  )
  const bound = server.address()
  const id = `a-false-${address}`
  network.members.set(id, {
    id,
    addresses: [address],
    servicePort: typeof bound === "object" && bound !== null ? bound.port : 0
  })
  for (const name of names) {
    const key = ContentKey.make(name)
    // In front of the honest holders.
    network.providers.set(key, new Set([id, ...(network.providers.get(key) ?? [])]))
  }
  return { id, requests, sockets }
})
