import { assert, describe, it } from "@effect/vitest"
import { Dht } from "@spegel-ts/router/internal/dht/Dht"
import { closest, positionOf } from "@spegel-ts/router/internal/dht/Distance"
import { copied } from "@spegel-ts/router/internal/dht/members/MemberTable"
import { MessageType } from "@spegel-ts/router/internal/dht/rpc/Message"
import { GossipType, message } from "@spegel-ts/router/internal/dht/rpc/Protocol"
import { addressOf, type SimulatedNode, unusableAddress } from "@spegel-ts/testing/dht/SimulatedNetwork"
import { key, nodeAt, startNetwork } from "./TestNetwork.ts"

/** Nodes from the one closest to a key to the one furthest from it. */
const byDistance = (nodes: ReadonlyArray<SimulatedNode>, wanted: Uint8Array) =>
  closest(positionOf(wanted), nodes.map((node) => ({ node, position: positionOf(node.record.idBytes) })), nodes.length)
    .map(({ node }) => node)

const noAnswer = { closer: [], providers: [] }

describe("Dht", { timeout: 60_000 }, () => {
  it("lets nodes that know one peer know all members", async () => {
    const { grow } = startNetwork()
    const nodes = await grow(40)
    for (const { dht } of nodes) assert.strictEqual(dht.members.size, 39)
  })

  it("finds a key, or that nobody has it, in one round over the network", async () => {
    const { grow, network, requests } = startNetwork()
    const nodes = await grow(40)
    const wanted = key("wanted")
    const [asker, holder] = byDistance(nodes, wanted).slice(-2)
    if (asker === undefined || holder === undefined) throw new Error("no nodes")
    void holder.dht.advertise([wanted])
    await network.pass(1000)
    assert.deepStrictEqual(await network.lookup(asker, wanted), { found: [holder.id], millis: 2 })
    const before = requests.length
    assert.deepStrictEqual(await network.lookup(asker, key("absent")), { found: [], millis: 2 })
    assert.strictEqual(requests.length - before, 3)
  })

  it("hedges to others long before the closest members time out", async () => {
    const { grow, network } = startNetwork()
    const nodes = await grow(40)
    const wanted = key("wanted")
    const sorted = byDistance(nodes, wanted)
    const holder = nodeAt(sorted, 30)
    void holder.dht.advertise([wanted])
    await network.pass(1000)
    for (const node of sorted.slice(0, 3)) node.frozen = true
    const { found, millis } = await network.lookup(nodeAt(sorted, 39), wanted)
    assert.deepStrictEqual(found, [holder.id])
    assert.isBelow(millis, 50)
    await network.pass(200)
    // A later lookup leaves late members out.
    assert.strictEqual((await network.lookup(nodeAt(sorted, 39), wanted)).millis, 2)
  })

  it("ends a lookup when nobody answers", async () => {
    const { grow, network } = startNetwork()
    const nodes = await grow(30)
    for (const node of nodes.slice(1)) node.frozen = true
    const { found, millis } = await network.lookup(nodeAt(nodes, 0), key("wanted"))
    assert.deepStrictEqual(found, [])
    assert.isAtMost(millis, 400)
  })

  it("names a holder that answers before one that is frozen", async () => {
    const { grow, network } = startNetwork()
    const nodes = await grow(10)
    const wanted = key("wanted")
    const [frozen, live, asker] = [nodeAt(nodes, 3), nodeAt(nodes, 4), nodeAt(nodes, 5)]
    void frozen.dht.advertise([wanted])
    void live.dht.advertise([wanted])
    await network.pass(1000)
    frozen.frozen = true
    await network.pass(5000)
    asker.dht.answer(live.id, "", message(MessageType.ping, Buffer.alloc(0)))
    assert.deepStrictEqual((await network.lookup(asker, wanted)).found, [live.id, frozen.id])
    await network.pass(30_000)
    assert.deepStrictEqual((await network.lookup(asker, wanted)).found, [live.id])
  })

  it("finds a live holder where others that were closer to the key have just gone", async () => {
    const { grow, network } = startNetwork()
    const nodes = await grow(30)
    const [frozen, live] = [nodeAt(nodes, 3), nodeAt(nodes, 4)]
    const keys = Array.from({ length: 40 }, (_, index) => key(`both ${index}`))
    void frozen.dht.advertise(keys)
    void live.dht.advertise(keys)
    await network.pass(1000)
    // A node that was the 21st closest to a key may have one of its records, and is among the closest now.
    const gone = nodes.slice(20)
    for (const node of gone) network.kill(node)
    await network.pass(300)
    frozen.frozen = true
    for (const asker of nodes.slice(5, 20)) {
      for (const wanted of keys) assert.include((await network.lookup(asker, wanted)).found, live.id)
    }
  })

  it("takes a frozen node back within a minute", async () => {
    const { grow, network } = startNetwork()
    const nodes = await grow(10)
    const frozen = nodeAt(nodes, 3)
    frozen.frozen = true
    await network.pass(120_000)
    assert.isUndefined(nodeAt(nodes, 4).dht.members.get(frozen.id))
    frozen.frozen = false
    await network.pass(60_000)
    assert.isDefined(nodeAt(nodes, 4).dht.members.get(frozen.id))
  })

  it("forgets a killed node, and the keys of one that said goodbye", async () => {
    const { grow, network } = startNetwork()
    const nodes = await grow(10)
    const [killed, stopped, asker] = [nodeAt(nodes, 3), nodeAt(nodes, 4), nodeAt(nodes, 5)]
    void killed.dht.advertise([key("killed")])
    void stopped.dht.advertise([key("stopped")])
    await network.pass(1000)
    network.kill(killed)
    network.stop(stopped)
    await network.pass(500)
    assert.deepStrictEqual((await network.lookup(asker, key("killed"))).found, [])
    assert.deepStrictEqual((await network.lookup(asker, key("stopped"))).found, [])
    // A message that was sent before the goodbye does not bring the node back.
    asker.dht.answer(stopped.id, "", message(MessageType.ping, Buffer.alloc(0)))
    assert.isUndefined(asker.dht.members.get(stopped.id))
  })

  it("forgets a key that is withdrawn while it is being handed out", async () => {
    const { grow, network } = startNetwork()
    const nodes = await grow(10)
    void nodeAt(nodes, 3).dht.advertise([key("brief")])
    nodeAt(nodes, 3).dht.withdraw([key("brief")])
    await network.pass(1000)
    for (const node of nodes) assert.deepStrictEqual((await network.lookup(node, key("brief"))).found, [])
  })

  it("hands a newcomer its share within two seconds", async () => {
    const { grow, network, start } = startNetwork()
    const nodes = await grow(10)
    const keys = Array.from({ length: 100 }, (_, index) => key(`share ${index}`))
    void nodeAt(nodes, 3).dht.advertise(keys)
    await network.pass(1000)
    const newcomer = start("newcomer")
    network.connect(newcomer, nodeAt(nodes, 0))
    await network.pass(2000)
    assert.strictEqual(newcomer.dht.store.size, 100)
  })

  it("hands everything out again after a suspension, and before records expire", async () => {
    const { grow, network, requests } = startNetwork()
    const nodes = await grow(5)
    void nodeAt(nodes, 1).dht.advertise([key("kept")])
    await network.pass(1000)
    const provided = () => requests.filter(({ message }) => message.type === MessageType.addProvider).length
    const before = provided()
    network.suspend(3_600_000)
    await network.pass(7000)
    assert.strictEqual(provided() - before, 4)
    await network.pass(30 * 60_000)
    assert.deepStrictEqual((await network.lookup(nodeAt(nodes, 2), key("kept"))).found, [nodeAt(nodes, 1).id])
  })

  it("spreads what it hands out again over the last fifth of the interval", async () => {
    const { grow, network, requests } = startNetwork()
    const nodes = await grow(2)
    const keys = Array.from({ length: 400 }, (_, index) => key(`kept ${index}`))
    void nodeAt(nodes, 1).dht.advertise(keys)
    await network.pass(1000)
    const provided = () => requests.filter(({ message }) => message.type === MessageType.addProvider).length
    const counts: Array<number> = []
    for (let seconds = 0; seconds < 560; seconds += 10) {
      const before = provided()
      await network.pass(10_000)
      counts.push(provided() - before)
    }
    const first = counts.findIndex((count) => count > 0)
    assert.isAtLeast(first, 42)
    assert.isAtMost(counts.findLastIndex((count) => count > 0), 55)
    assert.strictEqual(counts.reduce((sum, count) => sum + count, 0), keys.length)
    // Roughly a twelfth of them every ten seconds.
    assert.isAtMost(Math.max(...counts), keys.length / 5)
  })

  it("keeps a Go node's record for 20 minutes, which sends it again within 15, and one of ours for 11", async () => {
    const { grow, network } = startNetwork()
    const [node, ours, foreign] = await grow(3) as [SimulatedNode, SimulatedNode, SimulatedNode]
    const member = node.dht.members.get(foreign.id)
    if (member === undefined) throw new Error("no member")
    member.ours = false
    // Stored directly, so that the nodes do not send the records again.
    for (const { id, record } of [ours, foreign]) {
      const providers = [{ id: record.idBytes, addresses: record.addresses }]
      node.dht.answer(id, "", message(MessageType.addProvider, key("wanted"), [], providers))
    }
    const providers = () => node.dht.store.get(key("wanted"), network.clock.now / 1000).toSorted()
    const both = [foreign.id, ours.id].toSorted()
    assert.deepStrictEqual(providers(), both)
    await network.pass(10.9 * 60_000)
    assert.deepStrictEqual(providers(), both)
    await network.pass(0.2 * 60_000)
    assert.deepStrictEqual(providers(), [foreign.id])
    await network.pass(8.8 * 60_000)
    assert.deepStrictEqual(providers(), [foreign.id])
    await network.pass(0.2 * 60_000)
    assert.deepStrictEqual(providers(), [])
  })

  it("becomes one network again when a partition heals, without a bootstrapper", async () => {
    const { grow, network } = startNetwork()
    const nodes = await grow(20)
    network.part(nodes.slice(10))
    await network.pass(60_000)
    for (const { dht } of nodes) assert.strictEqual(dht.members.size, 9)
    network.heal()
    await network.pass(30_000)
    for (const { dht } of nodes) assert.strictEqual(dht.members.size, 19)
  })

  it("asks a member that only one peer named only when there is no other", async () => {
    const { grow, network, requests } = startNetwork()
    const nodes = await grow(30)
    const victim = nodeAt(nodes, 0)
    const wanted = key("wanted")
    void nodeAt(byDistance(nodes, wanted), 25).dht.advertise([wanted])
    await network.pass(1000)
    const liar = nodeAt(nodes, 7)
    const made = Array.from({ length: 100 }, (_, index) => ({
      id: Buffer.from(`made up ${index}`),
      addresses: [addressOf(200)]
    }))
    victim.dht.gossip(liar.id, message(GossipType.hello, Buffer.alloc(8), made))
    const before = requests.length
    await network.lookup(victim, wanted)
    assert.isFalse(requests.slice(before).some(({ to }) => to.startsWith("made up")))
    await network.pass(60_000)
    assert.isFalse([...victim.dht.members.values()].some(({ id }) => id.startsWith("made up")))
  })

  it("refuses unusable addresses, and more than sixteen members of one address", async () => {
    const { network, start } = startNetwork()
    const node = start("victim")
    const told = [{ id: Buffer.from("metadata"), addresses: [unusableAddress] }]
    const crowd = Array.from({ length: 60 }, (_, index) => start(`crowd ${index}`, { host: 77 }))
    for (const other of crowd) network.connect(node, other)
    await network.pass(100)
    node.dht.gossip("crowd 0", message(GossipType.hello, Buffer.alloc(8), told))
    assert.strictEqual(node.dht.members.size, 16)
    assert.isUndefined(node.dht.members.get("metadata"))
  })

  it("stores only records of their sender, and refuses unknown types", () => {
    const { network, start } = startNetwork()
    const [node, peer] = [start("node"), start("peer")]
    network.connect(node, peer)
    const forged = { id: Buffer.from("somebody"), addresses: [Buffer.from([1])] }
    const add = (providers: ReadonlyArray<typeof forged>) =>
      node.dht.answer("peer", "", { type: MessageType.addProvider, key: key("k"), ...noAnswer, providers })
    add([forged])
    add([{ id: Buffer.from("peer"), addresses: [] }])
    assert.strictEqual(node.dht.store.size, 0)
    add([{ id: Buffer.from("peer"), addresses: [Buffer.from([1])] }])
    assert.strictEqual(node.dht.store.size, 1)
    assert.throws(
      () => node.dht.answer("peer", "", { type: 99, key: key("k"), ...noAnswer }),
      /no message has type 99/
    )
    assert.throws(
      () => node.dht.gossip("peer", { type: 5, key: key("k"), ...noAnswer }),
      /no gossip message has type 5/
    )
  })

  it("keeps ticking after an exception", () => {
    const timers: Array<() => void> = []
    const environment = {
      now: () => 1000,
      uptime: () => 1000,
      random: () => 0.5,
      after: (_millis: number, run: () => void) => {
        timers.push(run)
        return () => undefined
      },
      idText: (bytes: Uint8Array) => Buffer.from(bytes).toString(),
      usable: (addresses: ReadonlyArray<Uint8Array>) => addresses,
      record: copied,
      groupOf: () => ""
    }
    const dht = new Dht({
      self: { id: "self", idBytes: Buffer.from("self") },
      addresses: () => [],
      servicePort: 5000,
      environment,
      transport: {
        request: () => Promise.reject(new Error("nobody")),
        provide: () => Promise.resolve(),
        gossip: () => undefined
      },
      ttlMillis: 1,
      refreshMillis: 1
    })
    let swept = 0
    dht.store.sweep = () => {
      swept++
      throw new TypeError("a bug")
    }
    dht.start()
    for (let tick = 1; tick <= 3; tick++) {
      assert.throws(() => timers.shift()?.(), "a bug")
      assert.strictEqual(swept, tick)
    }
  })

  it("drops records beyond a peer's share, without a penalty", () => {
    const { network, start } = startNetwork()
    const [node, peer] = [start("node"), start("peer")]
    network.connect(node, peer)
    const providers = [{ id: Buffer.from("peer"), addresses: [Buffer.from([1])] }]
    for (let name = 0; name < 100_010; name++) {
      node.dht.answer("peer", "", { type: MessageType.addProvider, key: key(`${name}`), ...noAnswer, providers })
    }
    assert.strictEqual(node.dht.store.size, 100_000)
  })
})
