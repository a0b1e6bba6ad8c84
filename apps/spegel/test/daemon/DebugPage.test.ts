import { assert, describe, it } from "@effect/vitest"
import type { PeerAuthMode } from "@spegel-ts/cluster-key/PeerAuth"
import type { PeerFacts } from "@spegel-ts/router/Peer"
import { Standing } from "@spegel-ts/router/Router"
import * as DebugPage from "@spegel-ts/spegel/daemon/DebugPage"

const page = (facts: Partial<DebugPage.DebugFacts>) =>
  DebugPage.render({
    plane: { name: "portable", reason: undefined },
    version: "1",
    standing: Standing.Joined({ peers: 3 }),
    peerAuth: "off",
    faults: ["containerd <does> not"],
    self: { id: "12D3Koo", addresses: ["10.0.0.1"], servicePort: 5000 },
    peers: [],
    snapshot: { tags: new Map(), images: new Map(), digests: 0 },
    pulls: [],
    ...facts
  })

const peersOf = (proved: number, unproved: number): ReadonlyArray<PeerFacts> =>
  [...Array.from({ length: proved }, () => true), ...Array.from({ length: unproved }, () => false)].map((
    proved,
    index
  ) => ({
    id: `peer-${index}`,
    addresses: [`10.0.1.${index}`],
    servicePort: 5000,
    proved
  }))

describe("DebugPage", () => {
  it("shows how the node stands to the network", () => {
    assert.include(
      page({ standing: Standing.Joining({ reason: "<none> asked" }) }),
      ">not ready</span> &lt;none&gt; asked"
    )
    assert.include(page({ standing: Standing.Alone({ reason: "nobody" }) }), ">ready, alone</span> nobody")
    const joined = page({ standing: Standing.Joined({ peers: 3 }) })
    assert.include(joined, ">ready</span>")
    assert.include(joined, `<p class="no">containerd &lt;does&gt; not</p>`)
    for (const words of ["12D3Koo", "10.0.0.1"]) assert.include(joined, words)
  })

  it("shows whether all peers have proved the cluster key, and the mode", () => {
    const text = (peerAuth: PeerAuthMode, proved: number, unproved: number) =>
      page({ peerAuth, peers: peersOf(proved, unproved) }).replaceAll(/<[^>]+>/g, "")
    assert.include(text("require", 12, 0), "Protected: all 12 peers (--peer-auth=require)")
    assert.include(text("require", 1, 0), "Protected: the one peer (--peer-auth=require)")
    assert.include(text("require", 0, 0), "Protected: no peers yet (--peer-auth=require)")
    assert.include(
      text("prefer", 9, 3),
      "Not protected: 3 of 12 peers have not proved the cluster key (--peer-auth=prefer)"
    )
    assert.include(text("prefer", 0, 1), "Not protected: 1 of 1 peer has not proved")
    assert.include(text("off", 12, 0), "Not protected: whoever reaches the router's port is a peer (--peer-auth=off)")
  })
})
