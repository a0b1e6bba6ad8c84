import type { Connection, Stream } from "@libp2p/interface"
import { multiaddr } from "@multiformats/multiaddr"
import { generate } from "@spegel-ts/cluster-key/KeyRing"
import { ConnectionProofs } from "@spegel-ts/router/internal/proof/ConnectionProofs"
import { initiate } from "@spegel-ts/router/internal/proof/Exchange"
import { ringOf } from "@spegel-ts/testing/ClusterKeys"
import { sideOf, statementOf } from "@spegel-ts/testing/router/Sides"
import { assert, describe, it } from "vitest"
import { FakeStream } from "./FakeStream.ts"

const ring = ringOf(generate())

const sleep = (millis: number) => new Promise((resolve) => setTimeout(resolve, millis))

/** An inbound connection of a peer. It closes only by `abort`. */
class FakeConnection extends EventTarget {
  readonly direction = "inbound"
  readonly remotePeer: { readonly toString: () => string }
  readonly remoteAddr = multiaddr("/ip4/10.0.0.66/tcp/40000")
  status = "open"

  constructor(id: string) {
    super()
    this.remotePeer = { toString: () => id }
  }

  close(): Promise<void> {
    return new Promise(() => undefined)
  }

  abort(): void {
    this.status = "aborted"
    this.dispatchEvent(new Event("close"))
  }
}

const asConnection = (connection: FakeConnection) => connection as unknown as Connection

const start = () =>
  new ConnectionProofs({
    mode: "require",
    ring: () => ring,
    self: "self",
    statement: () => statementOf(1),
    onProved: () => undefined,
    guard: (run) => run()
  })

/** Proves the key on a connection, as its peer. */
const prove = async (proofs: ConnectionProofs, connection: FakeConnection) => {
  const stream = new FakeStream()
  proofs.serve(stream as unknown as Stream, asConnection(connection))
  const peer = initiate({
    send: (frame) =>
      stream.arrive(...frame.length < 0x80 ? [frame.length] : [frame.length | 0x80, frame.length >> 7], frame),
    receive: async () => {
      while (stream.sent.length === 0) await sleep(1)
      const [frame] = stream.sent.splice(0, 1)
      return (frame ?? Buffer.alloc(0)).subarray((frame?.[0] ?? 0) < 0x80 ? 1 : 2)
    }
  }, sideOf(connection.remotePeer.toString(), "self", ring, 2))
  await peer
}

describe("ConnectionProofs", () => {
  it("decides once the peer has proved the key", async () => {
    const proofs = start()
    const connection = new FakeConnection("peer")
    assert.isUndefined(proofs.now(asConnection(connection)))
    await prove(proofs, connection)
    const outcome = await proofs.settled(asConnection(connection))
    assert.deepStrictEqual(outcome, {
      _tag: "Proved",
      proof: { keyId: ring.current("router").id, statement: statementOf(2) }
    })
    assert.deepStrictEqual([...proofs.connectionsByKey], [[ring.current("router").id, 1]])
    connection.abort()
    assert.deepStrictEqual([...proofs.connectionsByKey], [[ring.current("router").id, 0]])
  })

  it("aborts the connection of a refused peer that does not let it close", async () => {
    const proofs = start()
    const connection = new FakeConnection("peer")
    proofs.identified(asConnection(connection), [])
    assert.deepStrictEqual(proofs.now(asConnection(connection)), { _tag: "Refused", reason: "unproved" })
    assert.strictEqual(connection.status, "open")
    await sleep(1200)
    assert.strictEqual(connection.status, "aborted")
  })

  it("keeps a proved connection when a further exchange does not end", async () => {
    const proofs = start()
    const connection = new FakeConnection("peer")
    await prove(proofs, connection)
    await sleep(1100)
    const stream = new FakeStream()
    proofs.serve(stream as unknown as Stream, asConnection(connection))
    stream.abort()
    await sleep(300)
    assert.strictEqual(proofs.now(asConnection(connection))?._tag, "Proved")
    assert.strictEqual(connection.status, "open")
    connection.abort()
  })

  it("does not count a connection that ends before its peer has proved anything", async () => {
    const proofs = start()
    const connection = new FakeConnection("peer")
    const stream = new FakeStream()
    proofs.serve(stream as unknown as Stream, asConnection(connection))
    stream.abort()
    await sleep(20)
    connection.abort()
    assert.strictEqual((await proofs.settled(asConnection(connection)))._tag, "Refused")
    await sleep(200)
    assert.deepStrictEqual([...proofs.failures.counts], [])
  })

  it("refuses the oldest of too many connections of an address that have proved nothing", () => {
    const proofs = start()
    const connections = Array.from({ length: 65 }, (_, index) => new FakeConnection(`peer ${index}`))
    for (const connection of connections) assert.isUndefined(proofs.now(asConnection(connection)))
    const refused = connections.filter((connection) => proofs.now(asConnection(connection)) !== undefined)
    assert.deepStrictEqual(refused.map((connection) => connections.indexOf(connection)), [0])
    for (const connection of connections) connection.abort()
  })
})
