import { assert, describe, it } from "@effect/vitest"
import { Kademlia } from "@spegel-ts/router/internal/dht/Dht"
import { closest, positionOf } from "@spegel-ts/router/internal/dht/Distance"
import { copied } from "@spegel-ts/router/internal/dht/members/MemberTable"
import { MessageType } from "@spegel-ts/router/internal/dht/rpc/Message"
import { message, NoteType } from "@spegel-ts/router/internal/dht/rpc/Protocol"
import { Network, type Node } from "@spegel-ts/testing/dht/Network"

const key = (name: string): Uint8Array => Buffer.concat([Uint8Array.of(0x12, 0x20), positionOf(Buffer.from(name))])

const nodeAt = (nodes: ReadonlyArray<Node>, index: number): Node => {
  const node = nodes[index]
  if (node === undefined) throw new Error(`no node ${index}`)
  return node
}

/** Nodes from the one closest to a key to the one furthest from it. */
const byDistance = (nodes: ReadonlyArray<Node>, wanted: Uint8Array) =>
  closest(positionOf(wanted), nodes.map((node) => ({ node, position: positionOf(node.idBytes) })), nodes.length)
    .map(({ node }) => node)

const noAnswer = { closer: [], providers: [] }

describe("Kademlia", { timeout: 60_000 }, () => {
  it("lets nodes that know one peer know all", async () => {
    const network = new Network()
    const nodes = await network.grow(40)
    for (const { kademlia } of nodes) assert.strictEqual(kademlia.members.size, 39)
  })

  it("finds a key over the network, and is sure that nobody has another, in one round", async () => {
    const network = new Network()
    const nodes = await network.grow(40)
    const wanted = key("wanted")
    const [asker, holder] = byDistance(nodes, wanted).slice(-2)
    if (asker === undefined || holder === undefined) throw new Error("no nodes")
    void holder.kademlia.advertise([wanted])
    await network.pass(1000)
    assert.deepStrictEqual(await network.lookup(asker, wanted), { found: [holder.id], millis: 2 })
    const before = network.requests.length
    assert.deepStrictEqual(await network.lookup(asker, key("absent")), { found: [], millis: 2 })
    assert.strictEqual(network.requests.length - before, 3)
  })

  describe("where everybody keeps everything", () => {
    const asked = async (network: Network, asker: Node, wanted: string): Promise<number> => {
      const before = network.requests.length
      await network.lookup(asker, key(wanted))
      const after = network.requests.slice(before)
      return after.filter(({ message }) => message.type === MessageType.getProviders).length
    }

    it("knows at once that nobody has a key", async () => {
      const network = new Network()
      const nodes = await network.grow(20)
      for (const node of nodes) assert.strictEqual(await asked(network, node, "absent"), 0)
      void nodeAt(nodes, 3).kademlia.advertise([key("wanted")])
      await network.pass(10)
      assert.deepStrictEqual(await network.lookup(nodeAt(nodes, 4), key("wanted")), {
        found: [nodeAt(nodes, 3).id],
        millis: 0
      })
    })

    it("asks while it is new itself", async () => {
      const network = new Network()
      const nodes = await network.grow(10)
      const holder = nodeAt(nodes, 3)
      void holder.kademlia.advertise([key("wanted")])
      await network.pass(1000)
      const newcomer = network.start("newcomer")
      network.connect(newcomer, nodeAt(nodes, 0))
      await network.pass(300)
      assert.deepStrictEqual((await network.lookup(newcomer, key("wanted"))).found, [holder.id])
      await network.pass(3000)
      assert.strictEqual(await asked(network, newcomer, "absent"), 0)
    })

    it("asks for a while after it was suspended: it may have missed records", async () => {
      const network = new Network()
      const nodes = await network.grow(10)
      network.suspend(3_600_000)
      let most = 0
      for (let turn = 0; turn < 16; turn++) {
        await network.pass(500)
        most = Math.max(most, await asked(network, nodeAt(nodes, 1), "absent"))
      }
      assert.isAbove(most, 0)
      await network.pass(10_000)
      assert.strictEqual(await asked(network, nodeAt(nodes, 1), "absent"), 0)
    })

    it("asks while another is new, who may not have handed out its keys", async () => {
      const network = new Network()
      const nodes = await network.grow(10)
      network.connect(network.start("newcomer"), nodeAt(nodes, 0))
      await network.pass(1000)
      assert.isAbove(await asked(network, nodeAt(nodes, 1), "absent"), 0)
      await network.pass(3000)
      assert.strictEqual(await asked(network, nodeAt(nodes, 1), "absent"), 0)
    })

    it("asks while one is silent", async () => {
      const network = new Network()
      const nodes = await network.grow(10)
      const [silent, asker] = [nodeAt(nodes, 3), nodeAt(nodes, 4)]
      silent.frozen = true
      asker.kademlia.disconnected(silent.id)
      assert.isAbove(await asked(network, asker, "absent"), 0)
      await network.pass(60_000)
      assert.isUndefined(asker.kademlia.members.get(silent.id))
      assert.strictEqual(await asked(network, asker, "absent"), 0)
    })

    it("asks where one is of another kind, which hands out its keys by rules of its own", async () => {
      const network = new Network()
      const nodes = await network.grow(3)
      const [foreign, asker] = [network.start("foreign"), nodeAt(nodes, 1)]
      network.connect(foreign, asker)
      await network.pass(3000)
      const member = asker.kademlia.members.get(foreign.id)
      if (member === undefined) throw new Error("no member")
      member.ours = false
      assert.isAbove(await asked(network, asker, "absent"), 0)
    })

    it("asks after others where it has a record of who is gone", async () => {
      const network = new Network()
      const nodes = await network.grow(10)
      const [gone, asker] = [nodeAt(nodes, 3), nodeAt(nodes, 4)]
      void gone.kademlia.advertise([key("wanted")])
      await network.pass(1000)
      gone.gone = true
      asker.kademlia.disconnected(gone.id)
      await network.pass(1000)
      assert.isUndefined(asker.kademlia.members.get(gone.id))
      assert.isAbove(await asked(network, asker, "wanted"), 0)
    })
  })

  it("asks others when the closest do not answer, long before their time is up", async () => {
    const network = new Network()
    const nodes = await network.grow(40)
    const wanted = key("wanted")
    const sorted = byDistance(nodes, wanted)
    const holder = nodeAt(sorted, 30)
    void holder.kademlia.advertise([wanted])
    await network.pass(1000)
    for (const node of sorted.slice(0, 3)) node.frozen = true
    const { found, millis } = await network.lookup(nodeAt(sorted, 39), wanted)
    assert.deepStrictEqual(found, [holder.id])
    assert.isBelow(millis, 50)
    await network.pass(200)
    // A later lookup leaves out who was late.
    assert.strictEqual((await network.lookup(nodeAt(sorted, 39), wanted)).millis, 2)
  })

  it("ends a lookup when nobody answers", async () => {
    const network = new Network()
    const nodes = await network.grow(30)
    for (const node of nodes.slice(1)) node.frozen = true
    const { found, millis } = await network.lookup(nodeAt(nodes, 0), key("wanted"))
    assert.deepStrictEqual(found, [])
    assert.isAtMost(millis, 400)
  })

  it("names a holder that answers before one that is frozen", async () => {
    const network = new Network()
    const nodes = await network.grow(10)
    const wanted = key("wanted")
    const [frozen, live, asker] = [nodeAt(nodes, 3), nodeAt(nodes, 4), nodeAt(nodes, 5)]
    void frozen.kademlia.advertise([wanted])
    void live.kademlia.advertise([wanted])
    await network.pass(1000)
    frozen.frozen = true
    await network.pass(5000)
    asker.kademlia.answer(live.id, "", message(MessageType.ping, Buffer.alloc(0)))
    assert.deepStrictEqual((await network.lookup(asker, wanted)).found, [live.id, frozen.id])
    await network.pass(30_000)
    assert.deepStrictEqual((await network.lookup(asker, wanted)).found, [live.id])
  })

  it("finds a live holder where others that were closer to the key have just gone", async () => {
    const network = new Network()
    const nodes = await network.grow(30)
    const [frozen, live] = [nodeAt(nodes, 3), nodeAt(nodes, 4)]
    const keys = Array.from({ length: 40 }, (_, index) => key(`both ${index}`))
    void frozen.kademlia.advertise(keys)
    void live.kademlia.advertise(keys)
    await network.pass(1000)
    // Who was the 21st closest to a key may have one record of it, and is among the closest now.
    const gone = nodes.slice(20)
    for (const node of gone) {
      node.gone = true
      for (const other of nodes.slice(0, 20)) other.kademlia.disconnected(node.id)
    }
    await network.pass(300)
    frozen.frozen = true
    for (const asker of nodes.slice(5, 20)) {
      for (const wanted of keys) assert.include((await network.lookup(asker, wanted)).found, live.id)
    }
  })

  it("takes a frozen node back within a minute", async () => {
    const network = new Network()
    const nodes = await network.grow(10)
    const frozen = nodeAt(nodes, 3)
    frozen.frozen = true
    await network.pass(120_000)
    assert.isUndefined(nodeAt(nodes, 4).kademlia.members.get(frozen.id))
    frozen.frozen = false
    await network.pass(60_000)
    assert.isDefined(nodeAt(nodes, 4).kademlia.members.get(frozen.id))
  })

  it("forgets who was killed, and the keys of who said goodbye", async () => {
    const network = new Network()
    const nodes = await network.grow(10)
    const [killed, stopped, asker] = [nodeAt(nodes, 3), nodeAt(nodes, 4), nodeAt(nodes, 5)]
    void killed.kademlia.advertise([key("killed")])
    void stopped.kademlia.advertise([key("stopped")])
    await network.pass(1000)
    killed.gone = true
    for (const node of nodes) if (node !== killed) node.kademlia.disconnected(killed.id)
    stopped.kademlia.stop()
    await network.pass(500)
    assert.deepStrictEqual((await network.lookup(asker, key("killed"))).found, [])
    assert.deepStrictEqual((await network.lookup(asker, key("stopped"))).found, [])
    // What still comes from one that has said goodbye does not bring it back.
    asker.kademlia.answer(stopped.id, "", message(MessageType.ping, Buffer.alloc(0)))
    assert.isUndefined(asker.kademlia.members.get(stopped.id))
  })

  it("forgets a key that is withdrawn while it is being handed out", async () => {
    const network = new Network()
    const nodes = await network.grow(10)
    void nodeAt(nodes, 3).kademlia.advertise([key("brief")])
    nodeAt(nodes, 3).kademlia.withdraw([key("brief")])
    await network.pass(1000)
    for (const node of nodes) assert.deepStrictEqual((await network.lookup(node, key("brief"))).found, [])
  })

  it("hands a newcomer its share within two seconds", async () => {
    const network = new Network()
    const nodes = await network.grow(10)
    const keys = Array.from({ length: 100 }, (_, index) => key(`share ${index}`))
    void nodeAt(nodes, 3).kademlia.advertise(keys)
    await network.pass(1000)
    const newcomer = network.start("newcomer")
    network.connect(newcomer, nodeAt(nodes, 0))
    await network.pass(2000)
    assert.strictEqual(newcomer.kademlia.store.size, 100)
  })

  it("hands everything out again after a suspension, and before records expire", async () => {
    const network = new Network()
    const nodes = await network.grow(5)
    void nodeAt(nodes, 1).kademlia.advertise([key("kept")])
    await network.pass(1000)
    const provided = () => network.requests.filter(({ message }) => message.type === MessageType.addProvider).length
    const before = provided()
    network.suspend(3_600_000)
    await network.pass(7000)
    assert.strictEqual(provided() - before, 4)
    await network.pass(30 * 60_000)
    assert.deepStrictEqual((await network.lookup(nodeAt(nodes, 2), key("kept"))).found, [nodeAt(nodes, 1).id])
  })

  it("spreads what it hands out again over the last fifth of the interval", async () => {
    const network = new Network()
    const nodes = await network.grow(2)
    const keys = Array.from({ length: 400 }, (_, index) => key(`kept ${index}`))
    void nodeAt(nodes, 1).kademlia.advertise(keys)
    await network.pass(1000)
    const provided = () => network.requests.filter(({ message }) => message.type === MessageType.addProvider).length
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
    // A twelfth of them each ten seconds, more or less.
    assert.isAtMost(Math.max(...counts), keys.length / 5)
  })

  it("keeps a record of a Go node for the 20 minutes within which it provides again, one of our kind for 11", async () => {
    const network = new Network()
    const [node, ours, foreign] = await network.grow(3) as [Node, Node, Node]
    const member = node.kademlia.members.get(foreign.id)
    if (member === undefined) throw new Error("no member")
    member.ours = false
    // By word of mouth, so that nothing is said again.
    for (const { address, id, idBytes } of [ours, foreign]) {
      const providers = [{ id: idBytes, addresses: [address] }]
      node.kademlia.answer(id, "", message(MessageType.addProvider, key("wanted"), [], providers))
    }
    const providers = () => node.kademlia.store.get(key("wanted"), network.now / 1000).toSorted()
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
    const network = new Network()
    const nodes = await network.grow(20)
    network.part(nodes.slice(10))
    await network.pass(60_000)
    for (const { kademlia } of nodes) assert.strictEqual(kademlia.members.size, 9)
    network.heal()
    await network.pass(30_000)
    for (const { kademlia } of nodes) assert.strictEqual(kademlia.members.size, 19)
  })

  it("believes no single peer about others: they are asked only when nobody else is there", async () => {
    const network = new Network()
    const nodes = await network.grow(30)
    const victim = nodeAt(nodes, 0)
    const wanted = key("wanted")
    void nodeAt(byDistance(nodes, wanted), 25).kademlia.advertise([wanted])
    await network.pass(1000)
    const liar = nodeAt(nodes, 7)
    const made = Array.from({ length: 100 }, (_, index) => ({
      id: Buffer.from(`made up ${index}`),
      addresses: [Buffer.from([200, index])]
    }))
    victim.kademlia.note(liar.id, message(NoteType.hello, Buffer.alloc(8), made))
    const before = network.requests.length
    await network.lookup(victim, wanted)
    assert.isFalse(network.requests.slice(before).some(({ to }) => to.startsWith("made up")))
    await network.pass(60_000)
    assert.isFalse([...victim.kademlia.members.values()].some(({ id }) => id.startsWith("made up")))
  })

  it("takes no address that a peer may not have, and no more than some identities of one place", async () => {
    const network = new Network()
    const node = network.start("victim")
    const told = [{ id: Buffer.from("metadata"), addresses: [Buffer.from([255, 1])] }]
    const crowd = Array.from({ length: 60 }, (_, index) => network.start(`crowd ${index}`, { site: 77 }))
    for (const other of crowd) network.connect(node, other)
    await network.pass(100)
    node.kademlia.note("crowd 0", message(NoteType.hello, Buffer.alloc(8), told))
    assert.strictEqual(node.kademlia.members.size, 16)
    assert.isUndefined(node.kademlia.members.get("metadata"))
  })

  it("stores records only of who sends them, and refuses what no peer sends", () => {
    const network = new Network()
    const [node, peer] = [network.start("node"), network.start("peer")]
    network.connect(node, peer)
    const forged = { id: Buffer.from("somebody"), addresses: [Buffer.from([1])] }
    const add = (providers: ReadonlyArray<typeof forged>) =>
      node.kademlia.answer("peer", "", { type: MessageType.addProvider, key: key("k"), ...noAnswer, providers })
    add([forged])
    add([{ id: Buffer.from("peer"), addresses: [] }])
    assert.strictEqual(node.kademlia.store.size, 0)
    add([{ id: Buffer.from("peer"), addresses: [Buffer.from([1])] }])
    assert.strictEqual(node.kademlia.store.size, 1)
    assert.throws(
      () => node.kademlia.answer("peer", "", { type: 99, key: key("k"), ...noAnswer }),
      /no message has type 99/
    )
    assert.throws(() => node.kademlia.note("peer", { type: 5, key: key("k"), ...noAnswer }), /no note has type 5/)
  })

  it("looks after members and records again after a bug", () => {
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
      keep: copied,
      siteOf: () => ""
    }
    const kademlia = new Kademlia({
      self: { id: "self", idBytes: Buffer.from("self") },
      addresses: () => [],
      servicePort: 5000,
      environment,
      transport: {
        request: () => Promise.reject(new Error("nobody")),
        provide: () => Promise.resolve(),
        tell: () => undefined
      },
      ttlMillis: 1,
      refreshMillis: 1
    })
    let swept = 0
    kademlia.store.sweep = () => {
      swept++
      throw new TypeError("a bug")
    }
    kademlia.start()
    for (let tick = 1; tick <= 3; tick++) {
      assert.throws(() => timers.shift()?.(), "a bug")
      assert.strictEqual(swept, tick)
    }
  })

  it("leaves out what a peer provides beyond its share, and does not hold it against the peer", () => {
    const network = new Network()
    const [node, peer] = [network.start("node"), network.start("peer")]
    network.connect(node, peer)
    const providers = [{ id: Buffer.from("peer"), addresses: [Buffer.from([1])] }]
    for (let name = 0; name < 100_010; name++) {
      node.kademlia.answer("peer", "", { type: MessageType.addProvider, key: key(`${name}`), ...noAnswer, providers })
    }
    assert.strictEqual(node.kademlia.store.size, 100_000)
  })
})
