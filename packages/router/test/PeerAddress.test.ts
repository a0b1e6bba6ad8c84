import { assert, describe, it } from "@effect/vitest"
import * as PeerAddress from "@spegel-ts/router/PeerAddress"
import { Result } from "effect"

describe("PeerAddress", () => {
  it("keeps peers inside the CIDRs, if there are any", () => {
    const within = Result.getOrThrow(PeerAddress.parseCidrs(["10.0.0.0/8", "fd00::/8"]))
    const usable = (ip: string) => PeerAddress.isUsable(ip, { loopback: false, within })
    assert.deepStrictEqual(["10.1.2.3", "fd00::1", "192.168.0.1", "2001:db8::1"].map(usable), [
      true,
      true,
      false,
      false
    ])
    for (const cidr of ["10.0.0.0", "10.0.0.0/33", "x/8", "fd00::/129", ""]) {
      assert.isTrue(Result.isFailure(PeerAddress.parseCidrs([cidr])), cidr)
    }
  })

  it("refuses loopback, link-local, multicast and unspecified addresses", () => {
    for (
      const ip of [
        "127.0.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "fe80::1",
        "ff02::1",
        "::"
      ]
    ) {
      assert.isFalse(PeerAddress.isUsable(ip, { loopback: false }), ip)
    }
  })
})
