import { assert, describe, it } from "@effect/vitest"
import { generate } from "@spegel-ts/cluster-key/KeyRing"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import { gossipProtocol, kademliaProtocol } from "@spegel-ts/router/internal/dht/rpc/Libp2pTransport"
import { MessageType } from "@spegel-ts/router/internal/dht/rpc/Message"
import { GossipType, message } from "@spegel-ts/router/internal/dht/rpc/Protocol"
import { initiate, proofProtocol } from "@spegel-ts/router/internal/proof/Exchange"
import { StreamChannel } from "@spegel-ts/router/internal/proof/StreamChannel"
import { routerConformance } from "@spegel-ts/router/RouterConformance"
import { ringOf } from "@spegel-ts/testing/ClusterKeys"
import { eventually } from "@spegel-ts/testing/Eventually"
import { freePort } from "@spegel-ts/testing/network/FreePort"
import { answering, ask, prove, type RawPeer, reach, startRawPeer, wireOf } from "@spegel-ts/testing/router/RawPeer"
import { sideOf } from "@spegel-ts/testing/router/Sides"
import { Effect, Logger, Schedule } from "effect"
import { startRouter } from "../StartRouter.ts"
import { endOf } from "./InMemory.ts"
import { changing, count, failureCounts, find, gauge, heard, knows, required } from "./Network.ts"

const ring = ringOf(generate())

routerConformance(
  "over libp2p, with a cluster key that peers have to prove",
  Effect.gen(function*() {
    const port = yield* freePort
    const options = { peers: [`127.5.0.2:${port}`], auth: required(ring) }
    return [
      yield* startRouter("127.5.0.2", port, options),
      yield* startRouter("127.5.0.3", port, options),
      yield* startRouter("127.5.0.4", port, options)
    ] as const
  })
)

describe("members with a cluster key", { timeout: 60_000 }, () => {
  it.live("prove it, and are believed what they state", () =>
    Effect.gen(function*() {
      const port = yield* freePort
      const a = yield* startRouter("127.5.1.2", port, { auth: required(ring), zone: "north", servicePort: 5100 })
      const peers = [`127.5.1.2:${port}`]
      const b = yield* startRouter("127.5.1.3", port, { auth: required(ring), peers, zone: "south", servicePort: 5200 })
      yield* knows(a, 1, true)
      yield* knows(b, 1, true)
      const keyId = ring.current("router").id
      yield* eventually(Effect.map(gauge("spegel_cluster_key_connections", { key: keyId }), (value) => value === 1))
      yield* eventually(Effect.map(gauge("spegel_peer_auth_members", { proved: "true" }), (value) => value === 1))
      const [seenByA] = yield* a.peers
      assert.deepInclude(seenByA, { addresses: ["127.5.1.3"], servicePort: 5200, proved: true, zone: "south" })
      assert.strictEqual(seenByA?.agent, "spegel-ts")
      const [seenByB] = yield* b.peers
      assert.deepInclude(seenByB, { addresses: ["127.5.1.2"], servicePort: 5100, proved: true, zone: "north" })
    }))

  it.live("with a key of their own are alone, and say why", () =>
    Effect.gen(function*() {
      const lines: Array<string> = []
      const logger = Logger.make(({ logLevel, message }) => void lines.push(`${logLevel} ${String(message)}`))
      const port = yield* freePort
      const peers = [`127.5.2.2:${port}`]
      const a = yield* startRouter("127.5.2.2", port, { auth: required(ring), peers })
      const b = yield* startRouter("127.5.2.3", port, { auth: required(ring), peers })
      yield* knows(b, 1, true)
      const wrong = yield* startRouter("127.5.2.4", port, { auth: required(ringOf(generate())), peers }).pipe(
        Effect.provide(Logger.layer([logger]))
      )
      yield* eventually(Effect.map(wrong.standing, (standing) =>
        standing._tag === "Joining" && /peers have another cluster key/.test(standing.reason)))
      yield* eventually(() =>
        lines.some((line) => line.startsWith("Warn peers have another cluster key"))
      )
      yield* Effect.sleep("3 seconds")
      assert.strictEqual(lines.filter((line) => line.startsWith("Warn")).length, 1)
      assert.deepStrictEqual(yield* wrong.peers, [])
      for (const node of [a, b]) assert.strictEqual((yield* node.peers).length, 1)
    }))

  it.live("join while some have a new key already and some only the old one", () =>
    Effect.gen(function*() {
      const [old, fresh] = [generate(), generate()]
      const port = yield* freePort
      const peers = [`127.5.3.2:${port}`]
      const nodes = yield* Effect.forEach([[old], [old, fresh], [fresh, old]], (keys, index) =>
        startRouter(`127.5.3.${2 + index}`, port, { auth: required(ringOf(...keys)), peers }))
      for (const node of nodes) {
        yield* knows(node, 2, true)
      }
    }))

  it.live("stay members while a key is replaced, without a connection that closes", () =>
    Effect.gen(function*() {
      const [old, fresh] = [generate(), generate()]
      const port = yield* freePort
      const peers = [`127.5.4.2:${port}`]
      const keys = yield* Effect.forEach([0, 1, 2], () => changing("require", ringOf(old)))
      const nodes = yield* Effect.forEach(keys, ({ auth }, index) =>
        startRouter(`127.5.4.${2 + index}`, port, { auth, peers }))
      for (const node of nodes) {
        yield* knows(node, 2, true)
      }
      const failures = yield* failureCounts
      let fewest = 2
      yield* Effect.forkScoped(Effect.forever(Effect.gen(function*() {
        for (const node of nodes) {
          fewest = Math.min(fewest, (yield* heard(node)).length)
        }
        yield* Effect.sleep("20 millis")
      })))
      const all = (ring: ReturnType<typeof ringOf>) =>
        Effect.forEach(keys, ({ set }) => set(ring), { discard: true })
      yield* all(ringOf(fresh, old))
      yield* Effect.sleep("500 millis")
      yield* all(ringOf(fresh))
      yield* Effect.sleep("6 seconds")
      for (const node of nodes) yield* knows(node, 2, true)
      assert.strictEqual(fewest, 2)
      yield* Effect.sleep("6 seconds")
      assert.deepStrictEqual(yield* failureCounts, failures)
    }))

  it.live("lose their connections when they have only a key that is retired", () =>
    Effect.gen(function*() {
      const [old, fresh] = [generate(), generate()]
      const port = yield* freePort
      const { auth, set } = yield* changing("require", ringOf(fresh, old))
      const current = yield* startRouter("127.5.5.2", port, { auth })
      const peers = [`127.5.5.2:${port}`]
      const late = yield* startRouter("127.5.5.3", port, { auth: required(ringOf(old)), peers })
      yield* knows(current, 1, true)
      yield* set(ringOf(fresh))
      yield* knows(current, 0)
      yield* knows(late, 0)
      const standing = yield* Effect.repeat(late.standing, {
        schedule: Schedule.spaced("100 millis"),
        times: 100,
        until: (standing) => standing._tag === "Alone" && /another cluster key/.test(standing.reason)
      })
      assert.strictEqual(standing._tag, "Alone")
    }))

  it.live("do not take a node that stands between them for a member", () =>
    Effect.gen(function*() {
      const port = yield* freePort
      const b = yield* startRouter("127.5.6.3", port, { auth: required(ring) })
      // It passes on to B what A sends, and to A what B answers.
      const middle: RawPeer = yield* startRawPeer("127.5.6.4", port, {
        proof: (fromA) =>
          void reach(middle, "127.5.6.3", port).then((connection) => connection.newStream(proofProtocol)).then(
            (toB) => {
              fromA.addEventListener("message", ({ data }) => toB.status === "open" && toB.send(data))
              toB.addEventListener("message", ({ data }) => fromA.status === "open" && fromA.send(data))
            }
          )
      })
      const failures = yield* failureCounts
      const a = yield* startRouter("127.5.6.2", port, { auth: required(ring), peers: [`127.5.6.4:${port}`] })
      yield* eventually(
        Effect.map(failureCounts, (now) => count(now, "bad_signature") > count(failures, "bad_signature"))
      )
      assert.deepStrictEqual(yield* a.peers, [])
      assert.deepStrictEqual(yield* b.peers, [])
    }))
})

describe("peers without the cluster key", { timeout: 120_000 }, () => {
  it.live("are no members in hundreds of tries, and nothing that they say is learnt or stored", () =>
    Effect.gen(function*() {
      const port = yield* freePort
      const victim = yield* startRouter("127.5.7.2", port, { auth: required(ring) })
      const honest = yield* startRouter("127.5.7.3", port, { auth: required(ring), peers: [`127.5.7.2:${port}`] })
      yield* knows(victim, 1, true)
      const key = ContentKey.make("registry.example/wanted:v1")
      let answered = 0
      let most = 0
      const rogue = (index: number) =>
        Effect.gen(function*() {
          const ownPort = yield* freePort
          const own = yield* startRawPeer("127.5.7.66", ownPort, index % 2 === 0 ? {} : { proof: () => undefined })
          const self = wireOf(own, "127.5.7.66", ownPort)
          const record = message(MessageType.addProvider, ContentKey.toDhtKey(key), [], [self])
          const hello = message(GossipType.hello, Buffer.alloc(8, 1), [wireOf(own, "127.5.7.99", 5001)])
          const answer = yield* Effect.promise(async () => {
            try {
              const connection = await reach(own, "127.5.7.2", port)
              void ask(connection, gossipProtocol, [hello]).catch(() => undefined)
              return await ask(connection, kademliaProtocol, [record, message(MessageType.ping, Buffer.alloc(0))], 50)
            } catch {
              return "closed"
            }
          })
          if (typeof answer !== "string") answered++
          most = Math.max(most, (yield* victim.peers).length)
        }).pipe(Effect.scoped)
      yield* Effect.forEach(Array.from({ length: 300 }, (_, index) => index), rogue, { concurrency: 8 })
      assert.strictEqual(answered, 0)
      assert.strictEqual(most, 1)
      for (const node of [victim, honest]) {
        assert.strictEqual((yield* node.peers).length, 1)
        assert.deepStrictEqual(yield* find(node, key), [])
      }
    }))

  it.live("lose the connection within seconds if they stay silent, and have no effect meanwhile", () =>
    Effect.gen(function*() {
      const port = yield* freePort
      yield* startRouter("127.5.8.2", port, { auth: required(ring) })
      const silent = yield* startRawPeer("127.5.8.66", port, { proof: () => undefined })
      const connection = yield* Effect.promise(() => reach(silent, "127.5.8.2", port))
      const opened = performance.now()
      const answer = ask(connection, kademliaProtocol, [message(MessageType.ping, Buffer.alloc(0))], 10_000)
      yield* eventually(() => connection.status !== "open")
      assert.isBelow(performance.now() - opened, 8000)
      assert.strictEqual(yield* Effect.promise(() => answer), "closed")
    }))

  it.live("are not asked anything, though members name them", () =>
    Effect.gen(function*() {
      const port = yield* freePort
      const victim = yield* startRouter("127.5.10.2", port, { auth: required(ring) })
      let asked = 0
      let met = 0
      const stranger = yield* startRawPeer("127.5.10.66", port, {
        serve: (stream) => {
          asked++
          return answering(stream, undefined as never)
        },
        proof: () => void met++
      })
      const key = ContentKey.make("registry.example/wanted:v1")
      // Two members that know the key name the stranger.
      for (const host of [4, 5]) {
        const liar = yield* startRawPeer(`127.5.10.${host}`, port, { proof: () => undefined })
        const connection = yield* Effect.promise(() => reach(liar, "127.5.10.2", port))
        yield* Effect.promise(() => prove(connection, liar, ring, host))
        yield* knows(victim, host - 3, true)
        const hello = message(GossipType.hello, Buffer.alloc(8, 1), [wireOf(stranger, "127.5.10.66", port)])
        yield* Effect.promise(() => ask(connection, gossipProtocol, [hello], 100))
      }
      yield* find(victim, key)
      yield* eventually(() => met > 0)
      yield* Effect.sleep("1 second")
      assert.strictEqual(asked, 0)
      assert.strictEqual((yield* heard(victim)).length, 2)
    }))

  for (const mode of ["require", "prefer"] as const) {
    it.live(`are where their proved statement says, whatever else they claim: ${mode}`, () =>
      Effect.gen(function*() {
        const port = yield* freePort
        const victim = yield* startRouter(`127.5.11.${mode === "require" ? 2 : 3}`, port, {
          auth: required(ring, mode)
        })
        const liar = yield* startRawPeer("127.0.0.1", port, { proof: () => undefined })
        const connection = yield* Effect.promise(() => reach(liar, `127.5.11.${mode === "require" ? 2 : 3}`, port))
        yield* Effect.promise(() => prove(connection, liar, ring, 66))
        yield* knows(victim, 1, true)
        const hello = message(GossipType.hello, Buffer.alloc(8, 1))
        yield* Effect.promise(() => ask(connection, gossipProtocol, [hello], 200))
        const [peer] = yield* victim.peers
        assert.deepInclude(peer, { addresses: ["10.0.0.66"], servicePort: 5066, zone: "zone-66", agent: "test" })
      }))
  }

  it.live("cannot use a key that goes out of use during the exchange", () =>
    Effect.gen(function*() {
      const [old, fresh] = [generate(), generate()]
      const port = yield* freePort
      const { auth, set } = yield* changing("require", ringOf(old, fresh))
      const victim = yield* startRouter("127.5.12.2", port, { auth })
      const late = yield* startRawPeer("127.5.12.66", port, { proof: () => undefined })
      const connection = yield* Effect.promise(() => reach(late, "127.5.12.2", port))
      const stream = yield* Effect.promise(() => connection.newStream(proofProtocol))
      const channel = new StreamChannel(stream)
      const side = sideOf(late.peerId.toString(), connection.remotePeer.toString(), ringOf(old))
      let received = 0
      const end = endOf(initiate({
        send: (frame) => channel.send(frame),
        receive: async () => {
          const frame = await channel.receive()
          if (received++ === 0) await Effect.runPromise(set(ringOf(fresh)))
          return frame
        }
      }, side))
      yield* Effect.promise(() => end)
      yield* eventually(() => connection.status !== "open")
      assert.deepStrictEqual(yield* victim.peers, [])
    }))

  it.live("cannot start one exchange after the other", () =>
    Effect.gen(function*() {
      const port = yield* freePort
      yield* startRouter("127.5.13.2", port, { auth: required(ring) })
      const busy = yield* startRawPeer("127.5.13.66", port, { proof: () => undefined })
      const connection = yield* Effect.promise(() => reach(busy, "127.5.13.2", port))
      const exchange = Effect.promise(() => endOf(prove(connection, busy, ring)))
      assert.strictEqual(yield* exchange, "proved")
      assert.notStrictEqual(yield* exchange, "proved")
      yield* Effect.sleep("1100 millis")
      assert.strictEqual(yield* exchange, "proved")
    }))

  it.live("are answered when they have proved it, even if they asked a little early", () =>
    Effect.gen(function*() {
      const port = yield* freePort
      yield* startRouter("127.5.9.2", port, { auth: required(ring) })
      const early = yield* startRawPeer("127.5.9.66", port, { proof: () => undefined })
      const connection = yield* Effect.promise(() => reach(early, "127.5.9.2", port))
      const ping = message(MessageType.ping, Buffer.alloc(0))
      const answer = ask(connection, kademliaProtocol, [ping], 5000)
      yield* Effect.sleep("300 millis")
      assert.strictEqual(yield* Effect.promise(() => Promise.race([answer, Promise.resolve("held")])), "held")
      yield* Effect.promise(() => prove(connection, early, ring))
      assert.deepInclude(yield* Effect.promise(() => answer), { type: MessageType.ping })
    }))
})
