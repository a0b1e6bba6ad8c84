import { assert, describe, it } from "@effect/vitest"
import { generate } from "@spegel-ts/cluster-key/KeyRing"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import { gossipProtocol, kademliaProtocol } from "@spegel-ts/router/internal/dht/rpc/Libp2pTransport"
import { MessageType } from "@spegel-ts/router/internal/dht/rpc/Message"
import { GossipType, message } from "@spegel-ts/router/internal/dht/rpc/Protocol"
import { proofProtocol } from "@spegel-ts/router/internal/proof/Exchange"
import * as Frame from "@spegel-ts/router/internal/proof/Frame"
import { StreamChannel } from "@spegel-ts/router/internal/proof/StreamChannel"
import { ringOf } from "@spegel-ts/testing/ClusterKeys"
import { eventually } from "@spegel-ts/testing/Eventually"
import { freePort } from "@spegel-ts/testing/network/FreePort"
import { ask, newIdentity, prove, reach, startRawPeer } from "@spegel-ts/testing/router/RawPeer"
import { Effect } from "effect"
import { startRouter } from "../StartRouter.ts"
import { changing, count, failureCounts, find, heard, knows, required } from "./Network.ts"

const ring = ringOf(generate())
const prefer = required(ring, "prefer")
const ping = message(MessageType.ping, Buffer.alloc(0))
const silent = () => undefined

describe("a node that prefers proofs", { timeout: 60_000 }, () => {
  it.live("is one network with nodes that prove the key, have another, or know nothing of keys", () =>
    Effect.gen(function*() {
      const port = yield* freePort
      const peers = [`127.6.0.2:${port}`]
      const start = (host: number, auth?: typeof prefer) =>
        startRouter(`127.6.0.${host}`, port, { peers, ...(auth === undefined ? {} : { auth }), zone: `zone-${host}` })
      const a = yield* start(2, prefer)
      const nodes = [
        a,
        yield* start(3, prefer),
        yield* start(4, required(ringOf(generate()), "prefer")),
        yield* start(5)
      ]
      for (const node of nodes) yield* knows(node, 3)
      const key = ContentKey.make("registry.example/app:v1")
      yield* Effect.forEach(nodes, (node) => node.advertise([key]).pipe(Effect.retry({ times: 50 })))
      for (const node of nodes) yield* eventually(Effect.map(find(node, key), ({ length }) => length === 3))
      const provedTo = (node: typeof a) =>
        Effect.map(
          node.peers,
          (members) => members.flatMap(({ addresses, proved }) => proved === true ? addresses : [])
        )
      assert.deepStrictEqual(yield* Effect.forEach(nodes, provedTo), [["127.6.0.3"], ["127.6.0.2"], [], []])
      const found = yield* find(a, key)
      assert.deepStrictEqual(
        new Map(found.map(({ addresses, proved, zone }) => [addresses[0], [proved, zone]])),
        new Map([["127.6.0.3", [true, "zone-3"]], ["127.6.0.4", [undefined, undefined]], ["127.6.0.5", [
          undefined,
          undefined
        ]]])
      )
    }))

  it.live("does not accept an id that has proved the key without a proof, until that says goodbye", () =>
    Effect.gen(function*() {
      const port = yield* freePort
      yield* startRouter("127.6.1.2", port, { auth: prefer })
      const privateKey = yield* newIdentity
      const without = Effect.gen(function*() {
        const peer = yield* startRawPeer("127.6.1.66", port, { privateKey })
        const connection = yield* Effect.promise(() => reach(peer, "127.6.1.2", port))
        return yield* Effect.promise(() => ask(connection, kademliaProtocol, [ping], 3000).catch(() => "closed"))
      }).pipe(Effect.scoped)
      const proving = (goodbye: boolean) =>
        Effect.gen(function*() {
          const peer = yield* startRawPeer("127.6.1.66", port, { privateKey, proof: silent })
          const connection = yield* Effect.promise(() => reach(peer, "127.6.1.2", port))
          yield* Effect.promise(() => prove(connection, peer, ring))
          const goodbyes = goodbye ? [message(GossipType.goodbye, Buffer.alloc(0))] : []
          yield* Effect.promise(() => ask(connection, gossipProtocol, goodbyes, 300))
        }).pipe(Effect.scoped)
      assert.notTypeOf(yield* without, "string")
      yield* proving(false)
      assert.strictEqual(yield* without, "closed")
      yield* eventually(Effect.map(failureCounts, (counts) => count(counts, "downgrade") > 0))
      yield* proving(true)
      assert.notTypeOf(yield* without, "string")
    }))

  it.live("refuses a peer whose signature is wrong, and one that sends what is no proof", () =>
    Effect.gen(function*() {
      const port = yield* freePort
      const victim = yield* startRouter("127.6.2.2", port, { auth: prefer })
      const peer = yield* startRawPeer("127.6.2.66", port, { proof: silent })
      const attempt = (frames: ReadonlyArray<Frame.Frame>) =>
        Effect.promise(async () => {
          const connection = await reach(peer, "127.6.2.2", port)
          const channel = new StreamChannel(await connection.newStream(proofProtocol))
          for (const frame of frames) channel.send(Frame.encode(frame))
          return connection
        })
      const opening: Frame.Frame = { _tag: "Opening", nonce: Buffer.alloc(16), keyIds: ring.ids("router") }
      const wrong: Frame.Frame = { _tag: "Confirmation", signature: Buffer.alloc(32), statement: Buffer.alloc(9) }
      for (const frames of [[opening, wrong], [wrong], [opening, opening, wrong]]) {
        const connection = yield* attempt(frames)
        yield* eventually(() => connection.status !== "open")
      }
      assert.deepStrictEqual(yield* victim.peers, [])
    }))

  it.live("closes the connection of a peer that starts a proof and does not go on", () =>
    Effect.gen(function*() {
      const port = yield* freePort
      yield* startRouter("127.6.3.2", port, { auth: prefer })
      const peer = yield* startRawPeer("127.6.3.66", port, { proof: silent })
      const connection = yield* Effect.promise(() => reach(peer, "127.6.3.2", port))
      yield* Effect.promise(async () => {
        const channel = new StreamChannel(await connection.newStream(proofProtocol))
        channel.send(Frame.encode({ _tag: "Opening", nonce: Buffer.alloc(16), keyIds: ring.ids("router") }))
      })
      const started = performance.now()
      yield* eventually(() => connection.status !== "open")
      assert.isBelow(performance.now() - started, 8000)
    }))

  it.live("has at most 16 unproved members at one address, whatever they claim", () =>
    Effect.gen(function*() {
      const port = yield* freePort
      const victim = yield* startRouter("127.6.4.2", port, { auth: prefer })
      yield* Effect.forEach(Array.from({ length: 40 }, (_, index) => index), (index) =>
        Effect.gen(function*() {
          // Half of them claim an address at which there is nobody.
          const announce = index % 2 === 0 ? {} : { announce: [`/ip4/127.6.5.${index}/tcp/5001`] }
          const peer = yield* startRawPeer("127.0.0.1", yield* freePort, announce)
          yield* Effect.promise(() => reach(peer, "127.6.4.2", port))
        }), { concurrency: 8 })
      yield* eventually(Effect.map(heard(victim), ({ length }) => length === 16))
      yield* Effect.sleep("1 second")
      const members = yield* heard(victim)
      assert.strictEqual(members.length, 16)
      for (const { addresses } of members) assert.deepStrictEqual(addresses, ["127.0.0.1"])
    }))

  it.live("proves its key to members once they have it too", () =>
    Effect.gen(function*() {
      const port = yield* freePort
      const other = generate()
      const { auth, set } = yield* changing("prefer", ringOf(other))
      const a = yield* startRouter("127.6.6.2", port, { auth: prefer })
      const b = yield* startRouter("127.6.6.3", port, { auth, peers: [`127.6.6.2:${port}`] })
      for (const node of [a, b]) yield* knows(node, 1, false)
      yield* set(ring)
      for (const node of [a, b]) yield* knows(node, 1, true)
    }))

  it.live("is refused by a node that requires proofs if it has another key", () =>
    Effect.gen(function*() {
      const port = yield* freePort
      const a = yield* startRouter("127.6.7.2", port, { auth: required(ring) })
      const peers = [`127.6.7.2:${port}`]
      const b = yield* startRouter("127.6.7.3", port, { auth: required(ringOf(generate()), "prefer"), peers })
      const c = yield* startRouter("127.6.7.4", port, { peers })
      yield* startRouter("127.6.7.5", port, { auth: prefer, peers })
      yield* knows(a, 1, true)
      yield* Effect.sleep("7 seconds")
      for (const node of [b, c]) {
        assert.deepStrictEqual((yield* heard(node)).filter(({ addresses }) => addresses.includes("127.6.7.2")), [])
      }
      yield* knows(a, 1, true)
    }))
})
