import { assert, describe, it } from "@effect/vitest"
import type { PeerAuthMode } from "@spegel-ts/cluster-key/PeerAuth"
import * as MemoryStore from "@spegel-ts/content/MemoryStore"
import * as Digest from "@spegel-ts/oci/Digest"
import type { RunningDownload, RunningRequest } from "@spegel-ts/registry/Activity"
import type { PeerFacts } from "@spegel-ts/router/Peer"
import { Router, Standing } from "@spegel-ts/router/Router"
import { html } from "@spegel-ts/spegel/page/Html"
import * as Page from "@spegel-ts/spegel/page/Page"
import type { Facts } from "@spegel-ts/spegel/views/Facts"
import * as Lookup from "@spegel-ts/spegel/views/Lookup"
import * as Pulls from "@spegel-ts/spegel/views/Pulls"
import * as Status from "@spegel-ts/spegel/views/Status"
import * as Wording from "@spegel-ts/spegel/views/Wording"
import { Effect, Layer } from "effect"
import { factsOf } from "./Facts.ts"

const page = (facts: Partial<Facts>, lookup?: Lookup.Lookup) =>
  Page.render({
    facts: factsOf(facts),
    images: {
      images: [{ name: "docker.io/library/nginx:1", digest: Digest.ofBytes(Buffer.from("n")) }],
      isUnknown: false
    },
    lookup,
    port: 9090,
    profile: false
  })

const peersOf = (proved: number, unproved: number): ReadonlyArray<PeerFacts> =>
  [...Array.from({ length: proved }, () => true), ...Array.from({ length: unproved }, () => false)].map((
    proved,
    index
  ) => ({ id: `peer-${index}`, addresses: [`10.0.1.${index}`], servicePort: 5000, proved }))

describe("HTML", () => {
  it("has all values escaped, and nothing twice", () => {
    const evil = `<b onclick="x">'&`
    assert.strictEqual(
      html`<p title="${evil}">${[evil, html`<i>${1}</i>`]}</p>`.text,
      "<p title=\"&lt;b onclick=&quot;x&quot;&gt;&#39;&amp;\">&lt;b onclick=&quot;x&quot;&gt;&#39;&amp;<i>1</i></p>"
    )
  })
})

describe("the page", () => {
  it("shows how the node stands to the network, and what is wrong", () => {
    const joining = page({ standing: Standing.Joining({ reason: "<none> asked" }) })
    assert.include(joining, "not ready</span> &lt;none&gt; asked")
    assert.include(page({ standing: Standing.Alone({ reason: "nobody" }) }), "ready, alone</span> nobody")
    assert.include(page({ faults: ["containerd <does> not"] }), `<p class="no">containerd &lt;does&gt; not</p>`)
  })

  it("says how to reach another node's page, on the port of this one", () => {
    assert.include(page({ peers: peersOf(1, 0) }), "status.podIP=10.0.1.0) 9091:9090")
  })

  it("shows circuits and pauses", () => {
    const text = page({
      peers: peersOf(2, 0),
      activity: {
        requests: [],
        downloads: [],
        circuits: [{ registry: "docker.io", millis: 8000 }],
        paused: [{ id: "peer-1", reason: "was too slow a moment ago", millis: 61_000 }]
      }
    })
    assert.include(text, "docker.io: peers kept requests waiting. They get little time for 8.0 s more.")
    assert.include(text, "it was too slow a moment ago (1 min 1 s more)")
  })
})

describe("the status", () => {
  it("says whether all peers have proved the cluster key, and the mode", () => {
    const text = (peerAuth: PeerAuthMode, proved: number, unproved: number) => {
      const { isProtected, protection } = Status.of(factsOf({ peerAuth, peers: peersOf(proved, unproved) }))
      return `${isProtected}: ${protection}`
    }
    assert.strictEqual(text("require", 12, 0), "true: all 12 peers (--peer-auth=require)")
    assert.strictEqual(text("require", 1, 0), "true: the one peer (--peer-auth=require)")
    assert.strictEqual(text("require", 0, 0), "true: no peers yet (--peer-auth=require)")
    assert.strictEqual(
      text("prefer", 9, 3),
      "false: 3 of 12 peers have not proved the cluster key (--peer-auth=prefer)"
    )
    assert.include(text("prefer", 0, 1), "1 of 1 peer has not proved")
    assert.strictEqual(text("off", 12, 0), "false: whoever reaches the router's port is a peer (--peer-auth=off)")
  })
})

const digest = Digest.ofBytes(Buffer.from("layer"))

const download = (facts: Partial<RunningDownload>): RunningDownload => ({
  digest,
  image: "docker.io/library/nginx",
  size: 100,
  written: 30,
  origin: "upstream",
  millis: 5,
  followers: [],
  ...facts
})

const request = (facts: Partial<RunningRequest>): RunningRequest => ({
  method: "GET",
  mirrored: false,
  own: true,
  client: "10.0.0.1",
  asker: undefined,
  image: "docker.io/library/nginx",
  content: digest,
  range: undefined,
  millis: 7,
  size: 100,
  sent: 20,
  source: undefined,
  waitingFor: undefined,
  attempts: [],
  ...facts
})

describe("running pulls", () => {
  const blobs = (downloads: ReadonlyArray<RunningDownload>, requests: ReadonlyArray<RunningRequest>) =>
    Pulls.of(factsOf({ peers: peersOf(3, 0), activity: { downloads, requests, circuits: [], paused: [] } }))
      .flatMap(({ blobs }) => blobs)
  const told = (...lists: Parameters<typeof blobs>) =>
    blobs(...lists).map((blob) => `${Wording.progress(blob.written, blob.size)} ${Wording.fromSource(blob)}`)

  it("come from upstream, from peers, or are waited for", () => {
    assert.deepStrictEqual(told([download({})], []), ["30 B of 100 B (30 %) from upstream"])
    assert.deepStrictEqual(told([download({ origin: "peers" })], [request({ source: "peer-1" })]), [
      "30 B of 100 B (30 %) from 10.0.1.1"
    ])
    assert.deepStrictEqual(told([download({ written: 0 })], [request({ waitingFor: "peer-2" })]), [
      "0 B of 100 B (0 %) waiting for 10.0.1.2"
    ])
    assert.deepStrictEqual(told([], [request({ size: undefined, sent: 0 })]), ["0 B looking for a peer"])
    assert.deepStrictEqual(told([download({ origin: "stalled" })], []), [
      "30 B of 100 B (30 %) no bytes for a while"
    ])
  })

  it("name the nodes that take them from here, and leave out what peers and other clients ask for", () => {
    const [blob] = blobs([download({ followers: ["peer-0"] })], [
      request({ mirrored: true, own: false, content: "sha256:other" }),
      request({ method: "HEAD", content: "sha256:other" })
    ])
    assert.deepStrictEqual(blob?.to, [{ id: "peer-0", address: "10.0.1.0" }])
    assert.lengthOf(blobs([download({})], [request({ own: false, content: "sha256:other" })]), 1)
  })
})

describe("a lookup", () => {
  const services = (providers: ReadonlyArray<string>) => {
    const network = Router.memoryNetwork()
    for (const id of ["b", "c"]) network.members.set(id, { id, addresses: [`10.0.0.${id}`], servicePort: 5000 })
    network.providers.set("docker.io/library/nginx:latest" as never, new Set(providers))
    return Layer.mergeAll(
      MemoryStore.layer,
      Router.layerMemory({ network, self: { id: "a", addresses: ["10.0.0.a"], servicePort: 5000 } })
    )
  }

  it.effect("finds who has an image by the name that people type", () =>
    Effect.gen(function*() {
      const lookUp = yield* Lookup.make
      const found = yield* lookUp(" nginx ")
      assert.strictEqual(found.key, "docker.io/library/nginx:latest")
      assert.deepStrictEqual(found.nodes.map(({ id }) => id), ["b", "c"])
      assert.isNull(found.heldHere)
    }).pipe(Effect.provide(services(["b", "c"]))))

  it.effect("says what is wrong with a name, however long it is", () =>
    Effect.gen(function*() {
      const lookUp = yield* Lookup.make
      assert.include((yield* lookUp("Upper/case")).problem, "invalid image reference")
      assert.include((yield* lookUp("a".repeat(100_000))).problem, "too long")
      // The longest that may be asked for is a key still.
      const registry = `${["a", "b", "c"].map((letter) => letter.repeat(60)).join(".")}:5000`
      const longest = `${registry}/${"d".repeat(163)}:${"e".repeat(128)}`
      assert.strictEqual(longest.length, 480)
      assert.strictEqual((yield* lookUp(longest)).key, longest)
    }).pipe(Effect.provide(services([]))))

  it.effect("tells a digest that this node has", () =>
    Effect.gen(function*() {
      const { put } = yield* MemoryStore.MemoryContent
      const digest = yield* put(Buffer.from("here"))
      const lookUp = yield* Lookup.make
      assert.strictEqual((yield* lookUp(`nginx@${digest}`)).heldHere, digest)
      assert.strictEqual((yield* lookUp(digest)).heldHere, digest)
    }).pipe(Effect.provide(services([]))))
})

describe("wording", () => {
  it("is short, and does not say that nearly all is all", () => {
    assert.deepStrictEqual([0, 1023, 1024, 1536, 150 * 1024, 3 * 1024 ** 3].map(Wording.size), [
      "0 B",
      "1023 B",
      "1.0 KiB",
      "1.5 KiB",
      "150 KiB",
      "3.0 GiB"
    ])
    assert.deepStrictEqual([0, 0.001, 0.5, 0.999, 1].map(Wording.percent), ["0 %", "< 1 %", "50 %", "99 %", "100 %"])
    assert.deepStrictEqual([7, 1500, 61_000, 3_660_000].map(Wording.duration), [
      "7 ms",
      "1.5 s",
      "1 min 1 s",
      "1 h 1 min"
    ])
  })
})
