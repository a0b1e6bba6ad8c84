import { assert, describe, it } from "@effect/vitest"
import * as Digest from "@spegel-ts/oci/Digest"
import { ContentId } from "@spegel-ts/registry/ContentId"
import { PeerMemory } from "@spegel-ts/registry/internal/mirror/PeerMemory"
import type { Peer } from "@spegel-ts/router/Peer"
import { PeerDisconnected, PeerRefused, PeerStalled, PeerUnreachable } from "@spegel-ts/transfer/PeerError"

const peer = (id: string): Peer => ({ id, addresses: [id], servicePort: 1 })
const [a, b] = [peer("a"), peer("b")] as const
const blob = (text: string) => ContentId.Digest({ digest: Digest.ofBytes(Buffer.from(text)) })
const [content, other] = [blob(""), blob("other")] as const
const unreachable = new PeerUnreachable({ peer: "a", reason: "refused" })
const remembering = () => new PeerMemory({ hedgeMillis: 50, recordMillis: 600_000 })

describe("PeerMemory", () => {
  it("pauses an unreachable peer, twice as long each time, up to a minute, until it serves", () => {
    const memory = remembering()
    let now = 0
    for (const pause of [1, 2, 4, 8, 16, 32, 60, 60]) {
      memory.failed(a, content, unreachable, now)
      assert.include(memory.objection(a, content, now + pause * 1000 - 1)?.reason, "could not be reached")
      now += pause * 1000
      assert.isUndefined(memory.objection(a, content, now))
    }
    // While it is left alone, more of the same does not prolong it.
    memory.failed(a, content, unreachable, now)
    memory.failed(a, content, unreachable, now + 1000)
    assert.isDefined(memory.objection(a, content, now + 60_999))
    assert.isUndefined(memory.objection(a, content, now + 61_000))
    memory.served(a, content, a.id)
    memory.failed(a, content, unreachable, now)
    assert.isUndefined(memory.objection(a, content, now + 1000))
  })

  it("pauses a slow peer for all content, and one that broke off or refused for that content", () => {
    const memory = remembering()
    memory.failed(a, content, new PeerStalled({ peer: "a", waitedMillis: 2000 }), 0)
    assert.include(memory.objection(a, other, 9999)?.reason, "too slow")
    assert.isUndefined(memory.objection(a, other, 10_000))
    for (
      const error of [
        new PeerDisconnected({ peer: "b", reason: "reset" }),
        new PeerRefused({ peer: "b", reason: "answered 500", status: 500 })
      ]
    ) {
      const memory = remembering()
      memory.failed(b, content, error, 0)
      assert.isDefined(memory.objection(b, content, 29_999))
      assert.isUndefined(memory.objection(b, content, 30_000))
      assert.isUndefined(memory.objection(b, other, 0))
    }
  })

  it("pauses a busy peer for as long as it asks, within bounds", () => {
    for (const [retryAfterMillis, pause] of [[undefined, 1000], [5000, 5000], [86_400_000, 30_000]] as const) {
      const memory = remembering()
      const busy = { peer: "a", reason: "answered 503", status: 503 }
      memory.failed(
        a,
        content,
        new PeerRefused(retryAfterMillis === undefined ? busy : { ...busy, retryAfterMillis }),
        0
      )
      assert.include(memory.objection(a, other, pause - 1)?.reason, "busy")
      assert.isUndefined(memory.objection(a, other, pause))
    }
  })

  it("remembers a 404 for a digest as long as the record lives, for a tag not at all", () => {
    const memory = remembering()
    const refused = new PeerRefused({ peer: "a", reason: "answered 404", status: 404 })
    const digest = blob("absent")
    memory.failed(a, digest, refused, 0)
    assert.strictEqual(memory.objection(a, digest, 599_999)?.reason, "did not have it")
    assert.isUndefined(memory.objection(a, digest, 600_000))
    assert.isUndefined(memory.objection(b, digest, 0))
    for (const name of ["registry.example/app:v1", "sha.example/app:v1", "sha256.example:5000/app:v1"]) {
      memory.failed(a, ContentId.Tag({ name }), refused, 0)
      assert.isUndefined(memory.objection(a, ContentId.Tag({ name }), 0), name)
    }
  })

  it("takes nothing from a repeated liar until its lies fade; shared blame counts for that content only", () => {
    const memory = remembering()
    for (const lie of ["one", "two"]) memory.corrupted([a], blob(lie), 0, a)
    for (const lie of ["one", "two", "three"]) memory.corrupted([a, b], blob(lie), 0)
    assert.include(memory.objection(b, blob("three"), 0)?.reason, "wrong bytes")
    assert.isUndefined(memory.objection(a, other, 0))
    memory.corrupted([a], blob("four"), 0, a)
    assert.strictEqual(memory.objection(a, other, 0)?.reason, "has lied repeatedly")
    assert.isUndefined(memory.objection(a, other, 60_000))
    assert.isUndefined(memory.objection(b, other, 0))
  })

  it("excludes the senders of bytes that containerd did not keep, until the bytes turn out to be right", () => {
    const memory = remembering()
    memory.doubted([a, b], content, 0)
    assert.strictEqual(memory.objection(a, content, 0)?.cost, "wrong bytes")
    assert.isUndefined(memory.objection(a, other, 0))
    memory.believed([a], content)
    assert.isUndefined(memory.objection(a, content, 0))
    assert.strictEqual(memory.objection(b, content, 299_999)?.cost, "wrong bytes")
    assert.isUndefined(memory.objection(b, content, 300_000))
    memory.corrupted([a], content, 0)
    memory.believed([a], content)
    assert.strictEqual(memory.objection(a, content, 0)?.cost, "wrong bytes")
  })

  it("drops the objections to a peer when it serves, and ranks them by cost", () => {
    const memory = remembering()
    const refused = new PeerRefused({ peer: "a", reason: "answered 404", status: 404 })
    const busy = new PeerRefused({ peer: "a", reason: "answered 503", status: 503 })
    const stalled = new PeerStalled({ peer: "a", waitedMillis: 1000 })
    for (const error of [refused, busy, unreachable]) {
      memory.failed(a, content, error, 0)
      assert.strictEqual(memory.objection(a, content, 0)?.cost, "little")
    }
    memory.failed(a, content, stalled, 0)
    assert.strictEqual(memory.objection(a, content, 0)?.cost, "time")
    // It answers again, if only that it is being started.
    memory.failed(a, content, unreachable, 0)
    assert.strictEqual(memory.objection(a, content, 0)?.cost, "little")
    memory.served(a, content, a.id)
    assert.isUndefined(memory.objection(a, content, 0))
    memory.failed(a, content, stalled, 0)
    memory.corrupted([a], content, 0, a)
    assert.strictEqual(memory.objection(a, content, 0)?.cost, "wrong bytes")
    memory.served(a, other, a.id)
    assert.strictEqual(memory.objection(a, content, 0)?.cost, "wrong bytes")
  })

  it("tells what counts for all content, and not what counts for one", () => {
    const memory = remembering()
    memory.failed(a, content, new PeerDisconnected({ peer: "a", reason: "closed" }), 0)
    assert.isDefined(memory.objection(a, content, 0))
    assert.isUndefined(memory.pause(a, 0))
    memory.failed(a, content, unreachable, 0)
    assert.include(memory.pause(a, 999)?.reason, "could not be reached")
    assert.isUndefined(memory.pause(a, 1000))
    for (let lie = 0; lie < 3; lie++) memory.corrupted([b], blob(`${lie}`), 0, b)
    assert.include(memory.pause(b, 0)?.reason, "has lied")
  })

  it("counts a peer as prompt from its first success until it keeps a request waiting", () => {
    const memory = remembering()
    assert.isFalse(memory.isPrompt(a))
    memory.served(a, content, a.id)
    memory.failed(a, content, unreachable, 0)
    assert.deepStrictEqual([memory.isPrompt(a), memory.isPrompt(b)], [true, false])
    memory.failed(a, content, new PeerStalled({ peer: "a", waitedMillis: 2000 }), 0)
    assert.isFalse(memory.isPrompt(a))
  })

  it("holds wrong bytes against an id at the address that sent them, and not at others", () => {
    const memory = remembering()
    const at = (...addresses: ReadonlyArray<string>): Peer => ({ ...a, addresses })
    for (const lie of ["one", "two", "three"]) memory.corrupted([at("10.0.0.66")], blob(lie), 0, at("10.0.0.66"))
    memory.doubted([at("10.0.0.66")], content, 0)
    for (const named of [at("10.0.0.66"), at("::ffff:10.0.0.66"), at("10.0.0.1", "10.0.0.66")]) {
      assert.strictEqual(memory.objection(named, other, 0)?.reason, "has lied repeatedly")
    }
    for (const lie of ["one", "two", "three"]) assert.isUndefined(memory.objection(at("10.0.0.1"), blob(lie), 0))
    assert.isUndefined(memory.objection(at("10.0.0.1"), content, 0))
    // Nor against another id at that address.
    assert.isUndefined(memory.objection({ ...b, addresses: ["10.0.0.66"] }, other, 0))
    const bytes = remembering()
    bytes.corrupted([at("10.0.0.66")], content, 0)
    assert.strictEqual(bytes.objection(at("10.0.0.1", "::ffff:10.0.0.66"), content, 0)?.cost, "wrong bytes")
    assert.isUndefined(bytes.objection(at("10.0.0.1"), content, 0))
  })

  it("keeps apart what happened to a peer as somebody named it, and as others name it", () => {
    const memory = remembering()
    const named = [{ ...a, addresses: ["10.0.0.66"] }, { ...a, servicePort: 2 }, {
      ...a,
      addresses: ["a", "10.0.0.66"]
    }]
    memory.served(a, content, "a")
    for (const framed of named) {
      memory.failed(framed, content, unreachable, 0)
      memory.failed(framed, content, new PeerStalled({ peer: "a", waitedMillis: 2000 }), 0)
      memory.failed(framed, content, new PeerRefused({ peer: "a", reason: "answered 503", status: 503 }), 0)
      memory.failed(framed, content, new PeerRefused({ peer: "a", reason: "answered 404", status: 404 }), 0)
      memory.busy(framed, 1)
      memory.lost(framed, 0)
      assert.isDefined(memory.objection(framed, other, 0))
      assert.isUndefined(memory.servedFrom(framed))
    }
    assert.isUndefined(memory.objection(a, content, 0))
    assert.strictEqual(memory.servedFrom(a), "a")
    assert.isTrue(memory.isPrompt(a))
    memory.busy(b, 1)
    assert.strictEqual(memory.choose([b, a], () => 0, 0), 1)
  })

  it("knows from which address a peer served, also after it has failed", () => {
    const memory = remembering()
    assert.isUndefined(memory.servedFrom(a))
    memory.served(a, content, "::ffff:10.0.0.1")
    memory.failed(a, content, new PeerStalled({ peer: "a", waitedMillis: 2000 }), 0)
    assert.strictEqual(memory.servedFrom(a), "10.0.0.1")
  })

  it("takes the less busy of two, and counts one that was late as busy", () => {
    const memory = remembering()
    assert.strictEqual(memory.choose([a, b], () => 0, 0), 0)
    memory.busy(a, 1)
    assert.strictEqual(memory.choose([a, b], () => 0, 0), 1)
    memory.busy(a, -1)
    assert.strictEqual(memory.choose([a, b], () => 0, 0), 0)
    memory.lost(a, 0)
    assert.strictEqual(memory.choose([a, b], () => 0, 9999), 1)
    assert.strictEqual(memory.choose([a, b], () => 0, 10_000), 0)
  })
})
