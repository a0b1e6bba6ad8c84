import type { Connection, Libp2p } from "@libp2p/interface"
import { economise } from "@spegel-ts/router/kademlia/ConnectionRules"
import { assert, describe, it } from "vitest"

interface Held {
  readonly peer: string
  readonly direction?: "inbound" | "outbound"
}

/** A host with these connections; `closed` notes those that were closed, by peer and direction. */
const hostOf = (held: ReadonlyArray<Held>) => {
  const closed: Array<string> = []
  const connectionOf = ({ direction = "outbound", peer }: Held) => ({
    status: "open",
    direction,
    remotePeer: { toString: () => peer },
    close: () => {
      closed.push(`${peer} ${direction}`)
      return Promise.resolve()
    }
  })
  const connections = held.map(connectionOf)
  const host = { peerId: { toString: () => "m" }, getConnections: () => connections } as unknown as Libp2p
  return { add: (another: Held) => connections.push(connectionOf(another)), closed, host }
}

const peerOf = ({ remotePeer }: Connection) => remotePeer.toString()

const optionsOf = () => ({
  bound: 128,
  isNeighbour: () => false,
  known: new WeakSet<Connection>(),
  lastUsed: () => 0,
  rest: () => undefined
})

describe("economise", () => {
  it("keeps of two connections of a pair the one that the smaller id opened", () => {
    const { closed, host } = hostOf([
      { peer: "a", direction: "inbound" },
      { peer: "a", direction: "outbound" },
      { peer: "z", direction: "inbound" },
      { peer: "z", direction: "outbound" }
    ])
    const options = optionsOf()
    economise(host, options)
    assert.deepStrictEqual(closed, [], "what is new may be in use on the other side")
    economise(host, options)
    assert.deepStrictEqual(closed, ["a outbound", "z inbound"])
  })

  it("leaves both alone while one of them is new", () => {
    const { add, closed, host } = hostOf([{ peer: "a", direction: "inbound" }])
    const options = optionsOf()
    economise(host, options)
    add({ peer: "a", direction: "outbound" })
    economise(host, options)
    assert.deepStrictEqual(closed, [])
    economise(host, options)
    assert.deepStrictEqual(closed, ["a outbound"])
  })

  it("beyond the bound spares the longest unused ones, never those of neighbours, and tells their peers first", () => {
    const peers = Array.from({ length: 150 }, (_, index) => `peer-${index}`)
    const { closed, host } = hostOf(peers.map((peer) => ({ peer })))
    const told: Array<string> = []
    const resting = economise(host, {
      ...optionsOf(),
      isNeighbour: (id) => peers.indexOf(id) < 20,
      lastUsed: (id) => peers.indexOf(id),
      rest: (id) => told.push(id)
    })
    assert.deepStrictEqual(resting.map(peerOf), peers.slice(20, 42))
    assert.deepStrictEqual(told, peers.slice(20, 42))
    assert.deepStrictEqual(closed, [])
  })

  it("spares none within the bound", () => {
    const { host } = hostOf([{ peer: "a" }, { peer: "b" }])
    assert.deepStrictEqual(economise(host, { ...optionsOf(), bound: 2 }), [])
  })
})
