import { noise } from "@chainsafe/libp2p-noise"
import { yamux } from "@chainsafe/libp2p-yamux"
import { assert, describe, it } from "@effect/vitest"
import { identify } from "@libp2p/identify"
import { kadDHT, passthroughMapper } from "@libp2p/kad-dht"
import { ping } from "@libp2p/ping"
import { tcp } from "@libp2p/tcp"
import { tls } from "@libp2p/tls"
import { multiaddr } from "@multiformats/multiaddr"
import { generate } from "@spegel-ts/cluster-key/KeyRing"
import type { PeerAuthState } from "@spegel-ts/cluster-key/PeerAuth"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import { ringOf } from "@spegel-ts/testing/ClusterKeys"
import { freePort } from "@spegel-ts/testing/network/FreePort"
import { Effect, Schedule, Stream } from "effect"
import { createLibp2p } from "libp2p"
import { CID } from "multiformats/cid"
import * as Digest from "multiformats/hashes/digest"
import { required } from "./proof/Network.ts"
import { startRouter } from "./StartRouter.ts"

/** A peer of the reference implementation, which does not speak our gossip protocol. */
const startStock = (address: string, port: number, encrypters: "noise" | "tls") =>
  Effect.acquireRelease(
    Effect.promise(() =>
      createLibp2p({
        addresses: { listen: [`/ip4/${address}/tcp/${port}`] },
        transports: [tcp()],
        connectionEncrypters: [encrypters === "noise" ? noise() : tls()],
        streamMuxers: [yamux()],
        connectionMonitor: { enabled: false },
        services: {
          identify: identify(),
          ping: ping(),
          dht: kadDHT({
            protocol: "/spegel/kad/1.0.0",
            clientMode: false,
            allowQueryWithZeroPeers: true,
            peerInfoMapper: passthroughMapper
          })
        }
      })
    ),
    (host) => Effect.promise(() => Promise.resolve(host.stop())).pipe(Effect.timeoutOption("2 seconds"))
  )

describe("one network with the reference implementation", { timeout: 60_000 }, () => {
  const off: PeerAuthState = { mode: "off" }
  const prefer = required(ringOf(generate()), "prefer")
  const cases = [["noise", off], ["tls", off], ["noise", prefer]] as const
  for (const [encrypters, auth] of cases) {
    it.live(`over ${encrypters}, with proofs ${auth.mode}: each finds what the other provides`, () =>
      Effect.gen(function*() {
        const port = yield* freePort
        const stock = yield* startStock("127.0.0.2", port, encrypters)
        const a = yield* startRouter("127.0.0.3", port, { auth, peers: [`127.0.0.2:${port}`] })
        const b = yield* startRouter("127.0.0.4", port, { auth, peers: [`127.0.0.2:${port}`] })
        const ids = yield* Effect.forEach([a, b], (router) => Effect.map(router.self, ({ id }) => id))
        yield* Effect.promise(() => stock.dial(multiaddr(`/ip4/127.0.0.3/tcp/${port}`)))
        yield* Effect.all([a.peers, b.peers]).pipe(
          Effect.filterOrFail((peers) => peers.every(({ length }) => length === 2), () => "not all known"),
          Effect.retry({ schedule: Schedule.spaced("100 millis"), times: 100 })
        )
        yield* Effect.all([a.ready, b.ready]).pipe(
          Effect.filterOrFail((ready) => ready.every(Boolean), () => "not ready"),
          Effect.retry({ schedule: Schedule.spaced("100 millis"), times: 100 })
        )

        const ours = ContentKey.make("registry.example/ours:v1")
        const theirs = ContentKey.make("registry.example/theirs:v1")
        const cid = (key: ContentKey.ContentKey) => CID.createV1(0x55, Digest.decode(ContentKey.toDhtKey(key)))
        yield* a.advertise([ours])
        yield* Effect.promise(async () => {
          for await (const _event of stock.services.dht.provide(cid(theirs), { signal: AbortSignal.timeout(10_000) })) {
            // Only the end of the iteration matters.
          }
        })

        const found = yield* Effect.promise(async () => {
          const providers = new Set<string>()
          for await (
            const event of stock.services.dht.findProviders(cid(ours), { signal: AbortSignal.timeout(10_000) })
          ) {
            if (event.name === "PROVIDER") { for (const { id } of event.providers) providers.add(id.toString()) }
            if (providers.size > 0) break
          }
          return [...providers]
        })
        assert.deepStrictEqual(found, [ids[0]])
        for (const router of [a, b]) {
          // A record has no answer, and a lookup does not wait long for a busy peer.
          const peers = yield* Stream.runCollect(router.lookup(theirs, { count: 3 })).pipe(
            Effect.repeat({ schedule: Schedule.spaced("100 millis"), times: 50, until: ({ length }) => length > 0 })
          )
          assert.deepStrictEqual(peers.map(({ id }) => id), [stock.peerId.toString()])
        }
      }))
  }
})
