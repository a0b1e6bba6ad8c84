/** Measures how soon a new node answers for the keys that it is to store. */
import { noise } from "@chainsafe/libp2p-noise"
import { yamux } from "@chainsafe/libp2p-yamux"
import { identify } from "@libp2p/identify"
import { tcp } from "@libp2p/tcp"
import { multiaddr } from "@multiformats/multiaddr"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import { closest, positionOf } from "@spegel-ts/router/internal/dht/Distance"
import { MemberTable } from "@spegel-ts/router/internal/dht/members/MemberTable"
import { Libp2pTransport } from "@spegel-ts/router/internal/dht/rpc/Libp2pTransport"
import { MessageType } from "@spegel-ts/router/internal/dht/rpc/Message"
import { message, replication } from "@spegel-ts/router/internal/dht/rpc/Protocol"
import { everybody } from "@spegel-ts/router/internal/proof/Admission"
import { createLibp2p } from "libp2p"
import { base58btc } from "multiformats/bases/base58"
import type { Bar } from "../Bar.ts"
import { until } from "../Waiting.ts"
import * as Cluster from "./Cluster.ts"
import { joined } from "./faults.ts"

const keyCount = 1000
const rounds = 3

/** Asks one node for what it stores itself, as a peer that is not a member. */
const startAsker = async (address: string) => {
  const host = await createLibp2p({
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    connectionMonitor: { enabled: false },
    services: { identify: identify() }
  })
  const { remotePeer } = await host.dial(multiaddr(address))
  const idBytes = remotePeer.toMultihash().bytes
  const transport = new Libp2pTransport(host, () => ({ id: host.peerId.toMultihash().bytes, addresses: [] }), everybody)
  const asked = new MemberTable(() => "").candidate({
    id: remotePeer.toString(),
    idBytes,
    position: positionOf(idBytes),
    addresses: []
  })
  return {
    idBytes,
    keepsAll: async (keys: ReadonlyArray<Uint8Array>) => {
      for (const key of keys) {
        const { providers } = await transport.request(asked, message(MessageType.getProviders, key), 5000)
        if (providers.length === 0) return false
      }
      return true
    },
    stop: () => host.stop()
  }
}

/** One of `count` nodes comes back with a new identity, in a network with a thousand keys. */
export const newcomer = async (count: number, port: number): Promise<ReadonlyArray<Bar>> => {
  const cluster = await Cluster.startEach(count, port)
  try {
    await joined(cluster)
    const names = Array.from({ length: keyCount }, (_, index) => `newcomer:${index}`)
    await cluster.nodes[2]?.provide(names)
    const answering: Array<number> = []
    const newcomers: Array<Uint8Array> = []
    for (let round = 0; round < rounds; round++) {
      const place = count - 1 - round
      // Its identity is in memory, so that it has a new one after a restart.
      await cluster.nodes[place]?.restart([])
      const asker = await startAsker(`/ip4/${Cluster.loopbackAddresses(count)[place] ?? ""}/tcp/${port}`)
      try {
        newcomers.push(asker.idBytes)
        const others = cluster.nodes.slice(0, place).map(({ id }) => base58btc.baseDecode(id))
        const everybody = [...others, ...newcomers].map((idBytes) => ({ idBytes, position: positionOf(idBytes) }))
        const share = names.map((name) => ContentKey.toDhtKey(ContentKey.make(name))).filter((key) =>
          closest(positionOf(key), everybody, replication).some(({ idBytes }) => idBytes === asker.idBytes)
        )
        answering.push(await until(() => asker.keepsAll(share), 30_000))
      } finally {
        await asker.stop()
      }
    }
    return [{
      name: "a newcomer answers for its share of keys",
      value: Math.max(...answering),
      bound: 2000,
      unit: "ms"
    }]
  } finally {
    await cluster.stop()
  }
}
