import { noise } from "@chainsafe/libp2p-noise"
import { yamux } from "@chainsafe/libp2p-yamux"
import { assert, describe, it } from "@effect/vitest"
import { identify } from "@libp2p/identify"
import type { Connection } from "@libp2p/interface"
import { tcp } from "@libp2p/tcp"
import { multiaddr } from "@multiformats/multiaddr"
import { gossipProtocol, kademliaProtocol } from "@spegel-ts/router/internal/dht/rpc/Libp2pTransport"
import { freePort } from "@spegel-ts/testing/network/FreePort"
import { Effect } from "effect"
import { createLibp2p } from "libp2p"
import { connect, type Socket } from "node:net"
import { startRouter } from "./StartRouter.ts"

const victimAddress = "127.0.0.2"

/** A host that speaks the transport correctly, and leaves the protocol to the test. */
const startAttacker = (address: string, port: number) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const host = await createLibp2p({
        addresses: { listen: [`/ip4/${address}/tcp/${port}`] },
        transports: [tcp()],
        connectionEncrypters: [noise()],
        streamMuxers: [yamux()],
        connectionMonitor: { enabled: false },
        services: { identify: identify() }
      })
      // A peer that lists the protocols becomes a member.
      await host.handle([kademliaProtocol, gossipProtocol], (stream) => {
        stream.addEventListener("message", () => undefined)
      })
      return host
    }),
    (host) => Effect.promise(() => Promise.resolve(host.stop())).pipe(Effect.timeoutOption("2 seconds"))
  )

type Attacker = Effect.Success<ReturnType<typeof startAttacker>>

const reach = (attacker: Attacker, port: number): Promise<Connection> =>
  attacker.dial(multiaddr(`/ip4/${victimAddress}/tcp/${port}`))

describe("hostile peers", { timeout: 180_000 }, () => {
  it.live("that hold half-open sockets keep no honest peer out", () =>
    Effect.gen(function*() {
      const port = yield* freePort
      yield* startRouter(victimAddress, port)
      const sockets: Array<Socket> = []
      yield* Effect.addFinalizer(() => Effect.sync(() => sockets.forEach((socket) => socket.destroy())))
      for (let half = 0; half < 300; half++) {
        sockets.push(connect({ host: victimAddress, port, localAddress: "127.0.0.66" }).on("error", () => undefined))
      }
      yield* Effect.sleep("200 millis")
      for (let honest = 0; honest < 20; honest++) {
        const attacker = yield* startAttacker(`127.0.0.${100 + honest}`, port)
        const connection = yield* Effect.promise(() => reach(attacker, port))
        assert.strictEqual(connection.status, "open")
      }
    }))

  it.live("are disconnected and banned when they break the protocol repeatedly", () =>
    Effect.gen(function*() {
      const port = yield* freePort
      yield* startRouter(victimAddress, port)
      const attacker = yield* startAttacker("127.0.0.5", port)
      const breakIt = Effect.promise(async () => {
        const connection = await reach(attacker, port)
        const stream = await connection.newStream(kademliaProtocol)
        const aborted = new Promise((resolve) => stream.addEventListener("close", resolve, { once: true }))
        stream.send(Uint8Array.of(0xff, 0xff, 0xff, 0xff))
        await aborted
        await new Promise((resolve) => setTimeout(resolve, 200))
        return connection.status
      })
      assert.strictEqual(yield* breakIt, "open")
      assert.notStrictEqual(yield* breakIt, "open")
      const again = yield* Effect.promise(() =>
        reach(attacker, port).then((connection) => connection.newStream(kademliaProtocol)).then(
          () => "let in",
          () => "refused"
        )
      )
      assert.strictEqual(again, "refused")
    }))
})
