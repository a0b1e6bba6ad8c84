import { assert, describe, it } from "@effect/vitest"
import { Dht, type Provider } from "@spegel-ts/router/internal/dht/Dht"
import { positionOf } from "@spegel-ts/router/internal/dht/Distance"
import { copied, MemberTable, type ProvedFacts } from "@spegel-ts/router/internal/dht/members/MemberTable"
import { MessageType } from "@spegel-ts/router/internal/dht/rpc/Message"
import { empty, GossipType, message, textOf } from "@spegel-ts/router/internal/dht/rpc/Protocol"
import { addressOf, type SimulatedNode } from "@spegel-ts/testing/dht/SimulatedNetwork"
import { VirtualClock } from "@spegel-ts/testing/dht/VirtualClock"
import { key, nodeAt, startNetwork } from "./TestNetwork.ts"

const idOf = (name: string): Uint8Array => Buffer.from(name)

const peerOf = (name: string, host: number, group?: string) => ({
  ...copied(name, { id: idOf(name), addresses: [addressOf(host)] }),
  ...(group === undefined ? {} : { group })
})

const proofOf = (facts: Partial<ProvedFacts> = {}): ProvedFacts => ({
  keyId: "key",
  servicePort: 5000,
  zone: undefined,
  ...facts
})

const tableOf = () => new MemberTable(([first]) => first === undefined ? "" : textOf(first))

const lookup = async (network: ReturnType<typeof startNetwork>["network"], dht: Dht, wanted: Uint8Array) => {
  const found: Array<Provider> = []
  const end = dht.lookup(wanted, (provider) => {
    found.push(provider)
    return true
  })
  await network.pass(1000)
  await end
  return found
}

/** Makes a member of a node one that has proved something. */
const prove = (node: SimulatedNode, member: SimulatedNode, proof: ProvedFacts) =>
  node.dht.connected({ ...member.record, agent: undefined, ours: true, proof })

/** A node in a zone, whose requests are all answered. */
const aloneIn = (zone: string) => {
  const clock = new VirtualClock(1)
  const dht = new Dht({
    self: { id: "self", idBytes: idOf("self") },
    addresses: () => [],
    servicePort: 5000,
    zone,
    environment: {
      now: () => clock.now,
      uptime: () => clock.now,
      random: () => 0.5,
      after: (millis, run) => clock.after(millis, run),
      idText: textOf,
      usable: (claimed) => claimed,
      record: copied,
      groupOf: ([first]) => first === undefined ? "" : textOf(first)
    },
    transport: {
      request: (_member, { key, type }) => Promise.resolve(message(type, key)),
      provide: () => Promise.resolve(),
      gossip: () => undefined
    },
    ttlMillis: 600_000,
    refreshMillis: 540_000
  })
  return { clock, dht }
}

describe("Dht with proved members", { timeout: 60_000 }, () => {
  for (const proved of [true, false]) {
    it(`takes the addresses of a member from the table: ${proved ? "proved" : "unproved"}`, async () => {
      const { grow, network } = startNetwork()
      const nodes = await grow(30)
      const [asker, holder] = [nodeAt(nodes, 0), nodeAt(nodes, 1)]
      if (proved) prove(asker, holder, proofOf({ servicePort: 5999, zone: "z" }))
      const wanted = key("framed")
      // Every node but these two says that the holder is at another address.
      for (const liar of nodes.slice(2)) {
        const framed = liar.dht.members.get(holder.id)
        if (framed !== undefined) framed.addresses = [addressOf(99)]
        liar.dht.store.add(wanted, holder.id, "", 1e9)
      }
      await network.pass(100)
      const found = await lookup(network, asker.dht, wanted)
      assert.deepStrictEqual(found.map(({ id }) => id), [holder.id])
      assert.deepStrictEqual(found[0]?.addresses, [addressOf(1)])
      assert.strictEqual(found[0]?.servicePort, proved ? 5999 : 5000)
      assert.strictEqual(found[0]?.proof?.zone, proved ? "z" : undefined)
    })
  }

  it("offers a provider that only others know as one that has proved nothing", async () => {
    const { grow, network, start } = startNetwork()
    const nodes = await grow(30)
    const stranger = start("stranger")
    const wanted = key("wanted")
    const asker = nodeAt(nodes, 0)
    for (const node of nodes.slice(1)) {
      node.dht.members.heard(stranger.record, network.clock.now)
      node.dht.store.add(wanted, stranger.id, "", 1e9)
    }
    const [found] = await lookup(network, asker.dht, wanted)
    assert.deepStrictEqual([found?.id, found?.proof], [stranger.id, undefined])
  })

  it("names providers of its own zone first, among those that answer", async () => {
    const { clock, dht } = aloneIn("here")
    const wanted = key("wanted")
    const zones = ["there", "here", "there", "here", undefined, "here"]
    for (const [index, zone] of zones.entries()) {
      dht.connected({ ...peerOf(`peer ${index}`, index), agent: undefined, ours: true, proof: proofOf({ zone }) })
      dht.store.add(wanted, `peer ${index}`, "", 1e9)
      await clock.pass(100)
    }
    const late = dht.members.get("peer 5")
    if (late !== undefined) late.late = true
    const found: Array<string> = []
    void dht.lookup(wanted, ({ id }) => found.push(id) > 0)
    assert.deepStrictEqual(found, ["peer 3", "peer 1", "peer 4", "peer 2", "peer 0", "peer 5"])
  })

  it("does not let a member change the port that it has proved", async () => {
    const { grow, network } = startNetwork()
    const nodes = await grow(3)
    const [node, other] = [nodeAt(nodes, 0), nodeAt(nodes, 1)]
    prove(node, other, proofOf({ servicePort: 5999 }))
    await network.pass(100)
    const hello = Buffer.alloc(8)
    hello.writeUInt16BE(80)
    node.dht.gossip(other.id, message(GossipType.hello, hello))
    assert.strictEqual(node.dht.members.get(other.id)?.servicePort, 5999)
  })

  it("believes a proof before the peer has answered, and forgets it when the peer comes back without", async () => {
    const { grow, network } = startNetwork()
    const nodes = await grow(3)
    const [node, other] = [nodeAt(nodes, 0), nodeAt(nodes, 1)]
    node.dht.connected({
      ...other.record,
      addresses: [addressOf(50)],
      agent: undefined,
      ours: true,
      proof: proofOf()
    })
    assert.deepStrictEqual(node.dht.members.get(other.id)?.addresses, [addressOf(50)])
    assert.isDefined(node.dht.members.get(other.id)?.proof)
    assert.deepStrictEqual([node.dht.counts.proved, node.dht.counts.unproved], [1, 1])
    node.dht.connected({ ...other.record, agent: undefined, ours: true })
    await network.pass(100)
    assert.isUndefined(node.dht.members.get(other.id)?.proof)
  })

  it("names the members whose keys are no longer in use, and checks them", async () => {
    const { grow, network, requests } = startNetwork()
    const nodes = await grow(3)
    const [node, other] = [nodeAt(nodes, 0), nodeAt(nodes, 1)]
    prove(node, other, proofOf({ keyId: "old" }))
    await network.pass(100)
    assert.deepStrictEqual(node.dht.provedWithOtherKeys(["new"]), [other.id])
    assert.deepStrictEqual(node.dht.provedWithOtherKeys(["new", "old"]), [])
    requests.length = 0
    node.dht.check(other.id)
    await network.pass(10)
    assert.deepInclude(requests[0], { to: other.id, message: message(MessageType.ping, empty) })
  })
})

describe("MemberTable", () => {
  it("counts a peer that was heard from with its group, whatever addresses it claims", () => {
    const table = tableOf()
    for (let index = 0; index < 40; index++) table.heard(peerOf(`rogue ${index}`, index, "10.0.0.66"), 1)
    assert.strictEqual(table.size, 16)
    assert.isDefined(table.heard(peerOf("honest", 3), 1))
  })

  it("moves a peer between groups, and keeps the counts right", () => {
    const table = tableOf()
    for (let index = 0; index < 16; index++) table.heard(peerOf(`peer ${index}`, 1, "a"), 1)
    assert.isUndefined(table.heard(peerOf("another", 1, "a"), 1))
    assert.isDefined(table.heard(peerOf("peer 0", 1, "b"), 1))
    assert.isDefined(table.heard(peerOf("another", 1, "a"), 1))
    assert.isUndefined(table.heard(peerOf("peer 0", 1, "a"), 1))
    assert.isFalse(table.proved(peerOf("peer 0", 1, "a"), proofOf()))
    for (const { id } of table.values()) table.evict(id, 1, { retry: false })
    for (let index = 0; index < 16; index++) assert.isDefined(table.heard(peerOf(`later ${index}`, 1, "a"), 1))
  })

  it("lets a peer in at whose address others have named many that do not exist", () => {
    const table = tableOf()
    for (let index = 0; index < 16; index++) table.learn(peerOf(`rumour ${index}`, 7), "liar", 1)
    assert.isUndefined(table.learn(peerOf("rumour 17", 7), "liar", 1))
    assert.isDefined(table.heard(peerOf("honest", 7), 1))
    assert.strictEqual(table.size, 16)
  })

  it("keeps the proof of a member that was evicted until it comes back", () => {
    const table = tableOf()
    table.heard(peerOf("peer", 1), 1)
    table.evict("peer", 2, { retry: true })
    assert.isTrue(table.proved(peerOf("peer", 5), proofOf({ zone: "z" })))
    const heard = table.heard(peerOf("peer", 5), 3)
    assert.strictEqual(heard?.member.proof?.zone, "z")
    assert.deepStrictEqual(heard?.member.position, positionOf(idOf("peer")))
  })
})
