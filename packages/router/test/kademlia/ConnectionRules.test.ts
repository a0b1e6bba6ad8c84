import type { Connection, Libp2p } from "@libp2p/interface"
import { economise } from "@spegel-ts/router/kademlia/ConnectionRules"
import { assert, describe, it } from "vitest"

const longAgo = Date.now() - 60_000

interface Held {
  readonly peer: string
  readonly direction?: "inbound" | "outbound"
  readonly open?: number
}

/** A host with these connections; `closed` notes those that were closed, by peer and direction. */
const hostOf = (held: ReadonlyArray<Held>) => {
  const closed: Array<string> = []
  const connections = held.map(({ direction = "outbound", open = longAgo, peer }) => ({
    status: "open",
    direction,
    remotePeer: { toString: () => peer },
    timeline: { open },
    close: () => {
      closed.push(`${peer} ${direction}`)
      return Promise.resolve()
    }
  }))
  const host = { peerId: { toString: () => "m" }, getConnections: () => connections } as unknown as Libp2p
  return { closed, host }
}

const peerOf = ({ remotePeer }: Connection) => remotePeer.toString()

const options = { bound: 128, isNeighbour: () => false, lastUsed: () => 0, rest: () => undefined }

describe("economise", () => {
  it("keeps of two connections of a pair the one that the smaller id opened", () => {
    const { closed, host } = hostOf([
      { peer: "a", direction: "inbound" },
      { peer: "a", direction: "outbound" },
      { peer: "z", direction: "inbound" },
      { peer: "z", direction: "outbound" }
    ])
    economise(host, options)
    assert.deepStrictEqual(closed, ["a outbound", "z inbound"])
  })

  it("leaves a young connection alone, which may be in use on the other side", () => {
    const { closed, host } = hostOf([{ peer: "a", direction: "inbound" }, { peer: "a", open: Date.now() }])
    economise(host, options)
    assert.deepStrictEqual(closed, [])
  })

  it("beyond the bound spares the longest unused ones, never those of neighbours, and tells their peers first", () => {
    const peers = Array.from({ length: 150 }, (_, index) => `peer-${index}`)
    const { closed, host } = hostOf(peers.map((peer) => ({ peer })))
    const told: Array<string> = []
    const resting = economise(host, {
      bound: 128,
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
    assert.deepStrictEqual(economise(host, { ...options, bound: 2 }), [])
  })
})
