import type { Connection, Libp2p } from "@libp2p/interface"
import { economise, Gate } from "@spegel-ts/router/internal/host/ConnectionRules"
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

describe("Gate", () => {
  const connectionOf = (peer: string) => {
    const aborted: Array<Error> = []
    const remotePeer = { toString: () => peer }
    const connection = { remotePeer, abort: (error: Error) => aborted.push(error) } as unknown as Connection
    return { aborted, connection, remotePeer: connection.remotePeer }
  }

  it("bans who breaks the protocol again, however many have done so before", async () => {
    const gate = new Gate()
    const banned = Array.from({ length: 3000 }, (_, index) => connectionOf(`peer ${index}`))
    for (const { aborted, connection, remotePeer } of banned) {
      gate.violated(connection)
      assert.isFalse(await gate.gater.denyOutboundEncryptedConnection?.(remotePeer, connection as never))
      gate.violated(connection)
      assert.strictEqual(aborted.length, 1)
      assert.isTrue(await gate.gater.denyOutboundEncryptedConnection?.(remotePeer, connection as never))
    }
  })

  it("remembers bans longer than first violations", async () => {
    const gate = new Gate()
    const banned = connectionOf("banned")
    for (let time = 0; time < 2; time++) gate.violated(banned.connection)
    for (let index = 0; index < 3000; index++) gate.violated(connectionOf(`peer ${index}`).connection)
    assert.isTrue(await gate.gater.denyOutboundEncryptedConnection?.(banned.remotePeer, banned.connection as never))
  })
})
