import type { Connection } from "@libp2p/interface"
import { ConnectionGater } from "@spegel-ts/router/internal/host/ConnectionGater"
import { assert, describe, it } from "vitest"

describe("ConnectionGater", () => {
  const connectionOf = (peer: string) => {
    const aborted: Array<Error> = []
    const remotePeer = { toString: () => peer }
    const connection = { remotePeer, abort: (error: Error) => aborted.push(error) } as unknown as Connection
    return { aborted, connection, remotePeer: connection.remotePeer }
  }

  it("bans a peer that breaks the protocol again, however many did so before", () => {
    const gater = new ConnectionGater()
    const banned = Array.from({ length: 3000 }, (_, index) => connectionOf(`peer ${index}`))
    for (const { aborted, connection, remotePeer } of banned) {
      gater.violated(connection)
      assert.isFalse(gater.denyOutboundEncryptedConnection(remotePeer))
      gater.violated(connection)
      assert.strictEqual(aborted.length, 1)
      assert.isTrue(gater.denyOutboundEncryptedConnection(remotePeer))
    }
  })

  it("remembers bans longer than first violations", () => {
    const gater = new ConnectionGater()
    const banned = connectionOf("banned")
    for (let time = 0; time < 2; time++) gater.violated(banned.connection)
    for (let index = 0; index < 3000; index++) gater.violated(connectionOf(`peer ${index}`).connection)
    assert.isTrue(gater.denyOutboundEncryptedConnection(banned.remotePeer))
  })
})
