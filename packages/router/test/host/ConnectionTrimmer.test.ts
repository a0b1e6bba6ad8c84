import type { Connection, Libp2p } from "@libp2p/interface"
import { ConnectionTrimmer, type ConnectionTrimmerOptions } from "@spegel-ts/router/internal/host/ConnectionTrimmer"
import { assert, describe, it } from "vitest"

interface Held {
  readonly peer: string
  readonly direction?: "inbound" | "outbound"
}

/** A host with these connections; `closed` records those that were closed, by peer and direction. */
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

const trimmerOf = (host: Libp2p, options: Partial<ConnectionTrimmerOptions> = {}) =>
  new ConnectionTrimmer({
    host,
    bound: 128,
    neighbours: () => new Set(),
    lastUsed: () => 0,
    announceRest: () => undefined,
    ...options
  })

describe("ConnectionTrimmer", () => {
  it("keeps the connection that the smaller id opened when a pair has two", () => {
    const { closed, host } = hostOf([
      { peer: "a", direction: "inbound" },
      { peer: "a", direction: "outbound" },
      { peer: "z", direction: "inbound" },
      { peer: "z", direction: "outbound" }
    ])
    const trimmer = trimmerOf(host)
    trimmer.trim()
    assert.deepStrictEqual(closed, [], "a new connection may be in use on the other side")
    trimmer.trim()
    assert.deepStrictEqual(closed, ["a outbound", "z inbound"])
  })

  it("leaves both alone while one of them is new", () => {
    const { add, closed, host } = hostOf([{ peer: "a", direction: "inbound" }])
    const trimmer = trimmerOf(host)
    trimmer.trim()
    add({ peer: "a", direction: "outbound" })
    trimmer.trim()
    assert.deepStrictEqual(closed, [])
    trimmer.trim()
    assert.deepStrictEqual(closed, ["a outbound"])
  })

  it("gives up the longest unused ones beyond the bound, never those to neighbours, and tells their peers first", () => {
    const peers = Array.from({ length: 150 }, (_, index) => `peer-${index}`)
    const { closed, host } = hostOf(peers.map((peer) => ({ peer })))
    const told: Array<string> = []
    const resting = trimmerOf(host, {
      neighbours: () => new Set(peers.slice(0, 20)),
      lastUsed: (id) => peers.indexOf(id),
      announceRest: (id) => told.push(id)
    }).trim()
    assert.deepStrictEqual(resting.map(peerOf), peers.slice(20, 42))
    assert.deepStrictEqual(told, peers.slice(20, 42))
    assert.deepStrictEqual(closed, [])
  })

  it("closes none within the bound", () => {
    const { host } = hostOf([{ peer: "a" }, { peer: "b" }])
    assert.deepStrictEqual(trimmerOf(host, { bound: 2 }).trim(), [])
  })
})
