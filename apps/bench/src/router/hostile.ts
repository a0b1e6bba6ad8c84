/** Lets peers break the rules, and measures the effect on an honest one. */
import { noise } from "@chainsafe/libp2p-noise"
import { yamux } from "@chainsafe/libp2p-yamux"
import { identify } from "@libp2p/identify"
import type { Connection, Stream } from "@libp2p/interface"
import { tcp } from "@libp2p/tcp"
import { multiaddr } from "@multiformats/multiaddr"
import { gossipProtocol, kademliaProtocol } from "@spegel-ts/router/internal/dht/rpc/Libp2pTransport"
import { encodeFrame, MessageType, type WirePeer } from "@spegel-ts/router/internal/dht/rpc/Message"
import { GossipType, message } from "@spegel-ts/router/internal/dht/rpc/Protocol"
import { createLibp2p } from "libp2p"
import { randomBytes } from "node:crypto"
import { connect } from "node:net"
import type { Bar } from "../Bar.ts"
import { percentile } from "../Statistics.ts"
import { sleep, until } from "../Waiting.ts"
import * as Cluster from "./Cluster.ts"

/** A host that speaks the transport correctly, and leaves the protocol to the test. */
const startAttacker = async (address: string, port: number) => {
  const host = await createLibp2p({
    addresses: { listen: [`/ip4/${address}/tcp/${port}`] },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux({ maxOutboundStreams: 20_000 })],
    connectionMonitor: { enabled: false },
    services: { identify: identify() }
  })
  // A peer that lists the protocols becomes a member.
  await host.handle([kademliaProtocol, gossipProtocol], (stream) => {
    stream.addEventListener("message", () => undefined)
  })
  return host
}

type Attacker = Awaited<ReturnType<typeof startAttacker>>

const victimAddress = "127.9.0.1"

const reach = (attacker: Attacker, port: number): Promise<Connection> =>
  attacker.dial(multiaddr(`/ip4/${victimAddress}/tcp/${port}`))

const open = (connection: Connection, protocol = kademliaProtocol): Promise<Stream> =>
  connection.newStream(protocol, { maxOutboundStreams: 20_000 })

const key = (): Uint8Array => Buffer.concat([Uint8Array.of(0x12, 0x20), randomBytes(32)])
const address = (ip: string) => multiaddr(`/ip4/${ip}/tcp/5001`).bytes
const somebody = (ip = "10.1.2.3"): WirePeer => ({
  id: Buffer.concat([Uint8Array.of(0, 36, 8, 1, 18, 32), randomBytes(32)]),
  addresses: [address(ip)]
})

/** A message of identify push, in protobuf behind its length, with another agent and 300 other addresses each time. */
const identification = (push: number): Uint8Array => {
  const field = (number: number, value: Uint8Array) =>
    Buffer.concat([Uint8Array.of((number << 3) | 2, value.length), value])
  const addresses = Array.from(
    { length: 300 },
    (_, index) => field(2, address(`10.${push & 255}.${index >> 8}.${index & 255}`))
  )
  const body = Buffer.concat([...addresses, field(6, Buffer.from(`agent ${push}`))])
  return Buffer.concat([Uint8Array.of((body.length & 127) | 128, body.length >> 7), body])
}

const attempt = <A>(promise: Promise<A>) => promise.catch(() => undefined)

/** Each attack has its own connections. */
const attacks: Record<string, (attacker: Attacker, port: number) => Promise<unknown>> = {
  "frames larger than any": async (attacker, port) => {
    const stream = await open(await reach(attacker, port))
    stream.send(Uint8Array.of(0xff, 0xff, 0xff, 0x7f))
    for (let chunk = 0; chunk < 64; chunk++) stream.send(new Uint8Array(64 * 1024))
  },
  "numbers without an end": async (attacker, port) => {
    const stream = await open(await reach(attacker, port))
    for (let chunk = 0; chunk < 64; chunk++) stream.send(new Uint8Array(64 * 1024).fill(0xff))
  },
  "200 half frames": async (attacker, port) => {
    for (let half = 0; half < 200; half++) {
      const stream = await attempt(open(await reach(attacker, port)))
      stream?.send(Buffer.concat([Uint8Array.of(0x80, 0x80, 0x04), Buffer.alloc(30_000)]))
    }
  },
  "10,000 streams": async (attacker, port) => {
    const connection = await reach(attacker, port)
    for (let batch = 0; batch < 100; batch++) {
      await Promise.all(Array.from({ length: 100 }, () => attempt(open(connection))))
    }
  },
  "1,000,000 records": async (attacker, port) => {
    const self = { id: attacker.peerId.toMultihash().bytes, addresses: [address("127.9.0.66")] }
    const stream = await open(await reach(attacker, port))
    for (let batch = 0; batch < 5000; batch++) {
      const frames = Array.from({ length: 200 }, () => encodeFrame(message(MessageType.addProvider, key(), [], [self])))
      if (!stream.send(Buffer.concat(frames))) await stream.onDrain({ signal: AbortSignal.timeout(10_000) })
    }
  },
  "records of others": async (attacker, port) => {
    const stream = await open(await reach(attacker, port))
    for (let record = 0; record < 1000; record++) {
      stream.send(encodeFrame(message(MessageType.addProvider, key(), [], [somebody()])))
    }
  },
  "peers at loopback and metadata addresses, and 20,000 that are nowhere": async (attacker, port) => {
    const stream = await open(await reach(attacker, port), gossipProtocol)
    const hello = (peers: ReadonlyArray<WirePeer>) => encodeFrame(message(GossipType.hello, Buffer.alloc(8), peers))
    stream.send(hello([somebody("169.254.169.254"), somebody("0.0.0.0"), somebody("224.0.0.1")]))
    for (let batch = 0; batch < 400; batch++) {
      const peers = Array.from({ length: 50 }, (_, peer) => somebody(`10.66.${batch & 255}.${peer}`))
      if (!stream.send(hello(peers))) await stream.onDrain({ signal: AbortSignal.timeout(10_000) })
    }
  },
  "questions without reading the answers": async (attacker, port) => {
    const stream = await open(await reach(attacker, port))
    stream.pause()
    for (let question = 0; question < 20_000; question++) {
      if (stream.send(encodeFrame(message(MessageType.findNode, key())))) continue
      await stream.onDrain({ signal: AbortSignal.timeout(2000) })
    }
  },
  "garbage": async (attacker, port) => {
    for (let round = 0; round < 500; round++) {
      const stream = await open(await reach(attacker, port))
      for (let frame = 0; frame < 20; frame++) stream.send(Buffer.concat([Uint8Array.of(40), randomBytes(40)]))
    }
  },
  "5,000 new identities of itself": async (attacker, port) => {
    const connection = await reach(attacker, port)
    for (let push = 0; push < 5000; push++) {
      const stream = await attempt(open(connection, "/ipfs/id/push/1.0.0"))
      stream?.send(identification(push))
      await attempt(Promise.resolve(stream?.close()))
    }
  },
  "300 half open sockets": async (_attacker, port) => {
    const sockets = Array.from(
      { length: 300 },
      () => connect({ host: victimAddress, port, localAddress: "127.9.0.66" }).on("error", () => undefined)
    )
    await sleep(3000)
    for (const socket of sockets) socket.destroy()
  },
  "60 identities from one address": async (_attacker, port) => {
    const hosts = []
    for (let identity = 0; identity < 60; identity++) {
      const host = await startAttacker("127.9.0.77", port + 100 + identity)
      hosts.push(host)
      await attempt(reach(host, port))
    }
    await sleep(2000)
    await Promise.all(hosts.map((host) => Promise.resolve(host.stop())))
  }
}

export interface Assault {
  readonly attack: string
  readonly p99Millis: number
  readonly rssMiB: number
}

/** Runs each attack on one node, while an honest peer asks that node for keys that nobody has. */
export const hostile = async (
  port: number
): Promise<{ readonly assaults: ReadonlyArray<Assault>; readonly bars: ReadonlyArray<Bar> }> => {
  const cluster = await Cluster.startEach(2, port)
  try {
    const [victim, honest] = cluster.nodes
    if (victim === undefined || honest === undefined) throw new Error("no nodes")
    await victim.provide(["wanted"])
    await until(async () => await honest.peers() === 1, 10_000)
    let asked = 0
    const lookups = async () => {
      const millis: Array<number> = []
      for (let round = 0; round < 300; round++) {
        // Both nodes store all records. The honest one still asks, since the victim may know a provider.
        millis.push(...await honest.find([`nobody:${asked++}`], 1))
        await sleep(5)
      }
      return millis
    }
    await lookups()
    const before = await victim.rssBytes()
    const assaults: Array<Assault> = []
    let failed = 0
    let index = 10
    for (const [attack, run] of Object.entries(attacks)) {
      const attacker = await startAttacker(`127.9.0.${index++}`, port)
      const running = attempt(run(attacker, port))
      const millis = await lookups()
      failed += (await honest.find(["wanted"], 1)).filter((took) => took < 0).length
      await Promise.race([running, sleep(20_000)])
      const rssMiB = (await victim.rssBytes() - before) / 2 ** 20
      assaults.push({ attack, p99Millis: percentile(millis.map(Math.abs), 0.99), rssMiB })
      await attempt(Promise.resolve(attacker.stop()))
    }
    return {
      assaults,
      bars: [
        {
          name: "honest lookups under attack, worst p99",
          value: Math.max(...assaults.map(({ p99Millis }) => p99Millis)),
          bound: 20,
          unit: "ms"
        },
        { name: "honest lookups that failed", value: failed, bound: 0, unit: "" },
        {
          name: "memory of the attacked node grew by at most",
          value: Math.max(...assaults.map(({ rssMiB }) => rssMiB)),
          bound: 32,
          unit: "MiB"
        }
      ]
    }
  } finally {
    await cluster.stop()
  }
}
