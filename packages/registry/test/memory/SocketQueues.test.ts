import { assert, describe, it } from "@effect/vitest"
import * as SocketQueues from "@spegel-ts/registry/internal/memory/SocketQueues"
import { Effect } from "effect"
import { connect, createServer, type Socket } from "node:net"

const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1388 00000000:0000 0A 00000000:00000005 00:00000000 00000000     0        0 1 1 0000 100 0 0 10 0
   1: 0200007F:1388 4200007F:C001 01 00400000:00000010 01:00000014 00000000     0        0 2 1 0000 100 0 0 10 0
  12: 0200007F:1389 4200007F:C002 01 00000001:00000000 00:00000000 00000000     0        0 3 1 0000 100 0 0 10 0
`
const table6 =
  `  sl  local_address                         remote_address                        st tx_queue rx_queue tr
   0: 0000000000000000FFFF00000200007F:1388 0000000000000000FFFF00004300007F:C003 04 00000007:00000000 00:00000000
   1: 000000000000000000000000000000FD:1388 000000FD000000000000000001000000:C004 01 00000008:00000000 00:00000000
`

describe("SocketQueues", () => {
  it("reads the kernel's tables, of the ports asked for", () => {
    const wanted = (port: number) => port === 5000
    assert.deepStrictEqual(SocketQueues.parse(table, wanted), [
      { localPort: 5000, address: "127.0.0.66", port: 49153, unsent: 4 * 1024 ** 2, unread: 16 }
    ])
    assert.deepStrictEqual(SocketQueues.parse(table6, wanted).map(({ address, unsent }) => [address, unsent]), [
      ["127.0.0.67", 7],
      ["fd00::1", 8]
    ])
    assert.deepStrictEqual(SocketQueues.parse("", wanted), [])
  })

  for (const host of ["127.0.0.1", "::1"]) {
    it.live(`finds what a client has not taken, at ${host}`, () =>
      Effect.gen(function*() {
        const accepted = yield* Effect.callback<{ readonly socket: Socket; readonly client: Socket }>((resume) => {
          const server = createServer((socket) => {
            server.close()
            resume(Effect.succeed({ socket, client }))
          })
          let client: Socket
          server.listen(0, host, () => {
            const address = server.address()
            client = connect({ host, port: typeof address === "object" ? address?.port ?? 0 : 0 })
            client.pause()
          })
        })
        const { client, socket } = accepted
        yield* Effect.addFinalizer(() =>
          Effect.sync(() => {
            client.destroy()
            socket.destroy()
          })
        )
        socket.write(Buffer.alloc(64 * 1024 ** 2))
        const queue = Effect.sync(() => {
          const found = SocketQueues.read((port) => port === socket.localPort) ?? []
          return found.find(({ address, port }) => address === socket.remoteAddress && port === socket.remotePort)
        })
        for (let turn = 0; turn < 100 && ((yield* queue)?.unsent ?? 0) === 0; turn++) yield* Effect.sleep("20 millis")
        assert.isAbove((yield* queue)?.unsent ?? 0, 64 * 1024)
        assert.isAtMost((yield* queue)?.unsent ?? 0, SocketQueues.maxUnsent())
      }).pipe(Effect.scoped))
  }
})
