import { assert, describe, it } from "@effect/vitest"
import { MessageType } from "@spegel-ts/router/internal/dht/rpc/Message"
import type { SimulatedNode } from "@spegel-ts/testing/dht/SimulatedNetwork"
import { key, nodeAt, startNetwork } from "./TestNetwork.ts"

describe("a network in which every node stores every record", { timeout: 60_000 }, () => {
  const asked = async (
    { network, requests }: ReturnType<typeof startNetwork>,
    asker: SimulatedNode,
    wanted: string
  ) => {
    const before = requests.length
    await network.lookup(asker, key(wanted))
    const after = requests.slice(before)
    return after.filter(({ message }) => message.type === MessageType.getProviders).length
  }

  it("knows at once that nobody has a key", async () => {
    const simulation = startNetwork()
    const { grow, network } = simulation
    const nodes = await grow(20)
    for (const node of nodes) assert.strictEqual(await asked(simulation, node, "absent"), 0)
    void nodeAt(nodes, 3).dht.advertise([key("wanted")])
    await network.pass(10)
    assert.deepStrictEqual(await network.lookup(nodeAt(nodes, 4), key("wanted")), {
      found: [nodeAt(nodes, 3).id],
      millis: 0
    })
  })

  it("asks while it is new itself", async () => {
    const simulation = startNetwork()
    const { grow, network, start } = simulation
    const nodes = await grow(10)
    const holder = nodeAt(nodes, 3)
    void holder.dht.advertise([key("wanted")])
    await network.pass(1000)
    const newcomer = start("newcomer")
    network.connect(newcomer, nodeAt(nodes, 0))
    await network.pass(300)
    assert.deepStrictEqual((await network.lookup(newcomer, key("wanted"))).found, [holder.id])
    await network.pass(3000)
    assert.strictEqual(await asked(simulation, newcomer, "absent"), 0)
  })

  it("asks for a while after it was suspended: it may have missed records", async () => {
    const simulation = startNetwork()
    const { grow, network } = simulation
    const nodes = await grow(10)
    network.suspend(3_600_000)
    let most = 0
    for (let turn = 0; turn < 16; turn++) {
      await network.pass(500)
      most = Math.max(most, await asked(simulation, nodeAt(nodes, 1), "absent"))
    }
    assert.isAbove(most, 0)
    await network.pass(10_000)
    assert.strictEqual(await asked(simulation, nodeAt(nodes, 1), "absent"), 0)
  })

  it("asks while another is new and may not have handed out its keys", async () => {
    const simulation = startNetwork()
    const { grow, network, start } = simulation
    const nodes = await grow(10)
    network.connect(start("newcomer"), nodeAt(nodes, 0))
    await network.pass(1000)
    assert.isAbove(await asked(simulation, nodeAt(nodes, 1), "absent"), 0)
    await network.pass(3000)
    assert.strictEqual(await asked(simulation, nodeAt(nodes, 1), "absent"), 0)
  })

  it("asks while one is silent", async () => {
    const simulation = startNetwork()
    const { grow, network } = simulation
    const nodes = await grow(10)
    const [silent, asker] = [nodeAt(nodes, 3), nodeAt(nodes, 4)]
    silent.frozen = true
    asker.dht.disconnected(silent.id)
    assert.isAbove(await asked(simulation, asker, "absent"), 0)
    await network.pass(60_000)
    assert.isUndefined(asker.dht.members.get(silent.id))
    assert.strictEqual(await asked(simulation, asker, "absent"), 0)
  })

  it("asks if a member is of another implementation, which hands out its keys by other rules", async () => {
    const simulation = startNetwork()
    const { grow, network, start } = simulation
    const nodes = await grow(3)
    const [foreign, asker] = [start("foreign"), nodeAt(nodes, 1)]
    network.connect(foreign, asker)
    await network.pass(3000)
    const member = asker.dht.members.get(foreign.id)
    if (member === undefined) throw new Error("no member")
    member.ours = false
    assert.isAbove(await asked(simulation, asker, "absent"), 0)
  })

  it("asks if it has a record of a node that has gone", async () => {
    const simulation = startNetwork()
    const { grow, network } = simulation
    const nodes = await grow(10)
    const [gone, asker] = [nodeAt(nodes, 3), nodeAt(nodes, 4)]
    void gone.dht.advertise([key("wanted")])
    await network.pass(1000)
    network.kill(gone)
    await network.pass(1000)
    assert.isUndefined(asker.dht.members.get(gone.id))
    assert.isAbove(await asked(simulation, asker, "wanted"), 0)
  })
})
