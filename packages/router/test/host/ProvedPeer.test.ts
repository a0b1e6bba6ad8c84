import type { Connection } from "@libp2p/interface"
import { peerIdFromString } from "@libp2p/peer-id"
import { multiaddr } from "@multiformats/multiaddr"
import type { Dht } from "@spegel-ts/router/internal/dht/Dht"
import type { ConnectedPeer } from "@spegel-ts/router/internal/dht/members/Membership"
import * as HostEvents from "@spegel-ts/router/internal/host/HostEvents"
import type { IdentityConflicts } from "@spegel-ts/router/internal/host/IdentityConflicts"
import { statementOf } from "@spegel-ts/testing/router/Sides"
import { assert, describe, it } from "vitest"

const id = "12D3KooWM1K4FuuR5KkKCSw3qKRb4eiW37A27EDEwqX7QdPSRKek"

/** What the DHT is told of a peer that is connected from an IP, and states these. */
const told = (remote: string, stated: ReadonlyArray<string>, before?: { readonly group: string }) => {
  const connected: Array<ConnectedPeer> = []
  const dht = {
    members: { get: () => before === undefined ? undefined : { ...before, addresses: [] } },
    connected: (peer: ConnectedPeer) => connected.push(peer)
  } as unknown as Dht
  const conflicts = { introduced: () => undefined } as unknown as IdentityConflicts
  const connection = {
    remotePeer: peerIdFromString(id),
    remoteAddr: multiaddr(`/ip4/${remote}/tcp/40000`)
  } as unknown as Connection
  const addresses = stated.map((ip) => multiaddr(`/ip4/${ip}/tcp/5001`).bytes)
  const isThere = HostEvents.proved({ dht, conflicts, accepted: { loopback: false } }, connection, {
    keyId: "key",
    statement: { ...statementOf(1), addresses }
  })
  const [peer] = connected
  return {
    isThere,
    group: peer?.group,
    ips: peer?.addresses.map((address) => multiaddr(address).getComponents()[0]?.value)
  }
}

describe("a peer that has proved its statement", () => {
  it("is counted with its address at which it is seen, which comes first", () => {
    assert.deepStrictEqual(told("10.0.0.2", ["10.0.0.1", "10.0.0.2"]), {
      isThere: true,
      group: "10.0.0.2",
      ips: ["10.0.0.2", "10.0.0.1"]
    })
  })

  it("does not crowd out the node whose address it states", () => {
    const { group, isThere } = told("10.0.0.66", ["10.0.0.1"])
    assert.isFalse(isThere)
    assert.notStrictEqual(group, "10.0.0.1")
    assert.notStrictEqual(group, "10.0.0.66")
  })

  it("stays where it was seen before, when it connects by address translation", () => {
    assert.strictEqual(told("192.0.2.9", ["10.0.0.1"], { group: "10.0.0.1" }).group, "10.0.0.1")
  })

  it("has no address that no peer may have", () => {
    assert.deepStrictEqual(told("10.0.0.2", ["169.254.169.254", "127.0.0.1"]).ips, [])
  })
})
