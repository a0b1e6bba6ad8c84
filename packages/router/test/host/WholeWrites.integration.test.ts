import { assert, describe, it, vi } from "@effect/vitest"
import type { Connection, MultiaddrConnection, Upgrader } from "@libp2p/interface"
import { multiaddr } from "@multiformats/multiaddr"
import { silentLogger } from "@spegel-ts/router/internal/host/SilentLogger"
import { tcp } from "@spegel-ts/router/internal/host/WholeWrites"
import { freePort } from "@spegel-ts/testing/network/FreePort"
import { Effect } from "effect"
import { Socket } from "node:net"

/** The next message of a connection. */
const nextMessage = (connection: MultiaddrConnection | undefined) =>
  new Promise<Parameters<MultiaddrConnection["send"]>[0]>((resolve) =>
    connection?.addEventListener("message", ({ data }) => resolve(data), { once: true })
  )

describe("WholeWrites", () => {
  it("sends the parts of a message in one write, both ways", async () => {
    const connections: Array<MultiaddrConnection> = []
    const upgrader = {
      upgradeOutbound: (connection: MultiaddrConnection) => {
        connections.push(connection)
        return Promise.resolve({} as Connection)
      },
      upgradeInbound: (connection: MultiaddrConnection) => {
        connections.push(connection)
        return Promise.resolve()
      }
    } as unknown as Upgrader
    const transport = tcp({})({ logger: silentLogger })
    const address = multiaddr(`/ip4/127.0.0.1/tcp/${await Effect.runPromise(freePort)}`)
    const listener = transport.createListener({ upgrader })
    await listener.listen(address)
    try {
      await transport.dial(address, { upgrader, signal: AbortSignal.timeout(5000) })
      while (connections.length < 2) await new Promise((resolve) => setTimeout(resolve, 5))
      const [a, b] = connections
      const received = nextMessage(b)
      a?.send(new Uint8Array(2))
      const list = await received
      if (list instanceof Uint8Array) return assert.fail("a message is a list of parts")
      list.append(new Uint8Array(30))
      list.append(new Uint8Array(16))
      const write = vi.spyOn(Socket.prototype, "write")
      a?.send(list.sublist())
      b?.send(list.sublist())
      assert.deepStrictEqual(write.mock.calls.map(([data]) => data.length), [48, 48])
    } finally {
      vi.restoreAllMocks()
      for (const connection of connections) connection.abort(new Error("the test is over"))
      await listener.close()
    }
  })
})
