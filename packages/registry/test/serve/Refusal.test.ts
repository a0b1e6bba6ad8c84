import { assert, describe, it } from "@effect/vitest"
import { RangeNotSatisfiable } from "@spegel-ts/oci/ByteRange"
import * as Digest from "@spegel-ts/oci/Digest"
import * as DistributionRequest from "@spegel-ts/oci/DistributionRequest"
import { Refusal, tell } from "@spegel-ts/registry/internal/serve/Refusal"
import { PeerNotFound } from "@spegel-ts/registry/MirrorError"
import { Result } from "effect"

const digest = Digest.ofBytes(Buffer.from("content"))

/** Refusals of requests for content that has nothing wrong with it. */
const refusals = [
  Refusal.NoPassword(),
  Refusal.ClientUnproved({ credentials: "none" }),
  Refusal.ClientUnproved({ credentials: "wrong" }),
  Refusal.TooManyUploads({ bound: "peer", max: 2 }),
  Refusal.TooManyUploads({ bound: "all", max: 2 }),
  Refusal.Filtered(),
  Refusal.CanaryOfOther(),
  Refusal.Damaged({ digest }),
  Refusal.NotHeld({ wanted: digest }),
  Refusal.NotHeldNoNamespace({ wanted: digest }),
  Refusal.TagNotHeld({ repository: "team/app", tag: "v1" }),
  Refusal.TagsNotMirrored(),
  Refusal.NoPeer({ error: new PeerNotFound({ content: digest, tried: [] }) }),
  Refusal.NoMemory()
]

const asked = (kind: string, mirrored: boolean) => {
  const request = Result.getOrThrow(DistributionRequest.parse({
    method: "GET",
    url: `/v2/team/app/${kind}/${digest}?ns=registry.example`,
    headers: mirrored ? { "x-spegel-mirrored": "true" } : {}
  }))
  if (request._tag !== "Blob" && request._tag !== "Manifest") throw new Error("no content")
  return request
}

describe("Refusal", () => {
  it("is a 404 to containerd, whatever the reason, so that it asks upstream", () => {
    for (const [kind, code] of [["blobs", "BLOB_UNKNOWN"], ["manifests", "MANIFEST_UNKNOWN"]] as const) {
      for (const refusal of refusals) {
        const { error } = tell(refusal, asked(kind, false))
        assert.deepStrictEqual([error.status, error.code], [404, code], refusal._tag)
      }
    }
  })

  it("is a 503 to a peer where another peer may serve now, or this one later", () => {
    for (
      const refusal of [Refusal.NoMemory(), Refusal.TooManyUploads({ bound: "peer", max: 2 })]
    ) {
      const { error, headers } = tell(refusal, asked("blobs", true))
      assert.strictEqual(error.status, 503)
      assert.strictEqual(headers?.["retry-after"], "1")
    }
    for (const [byPeer, status] of [[true, 503], [false, 404]] as const) {
      assert.strictEqual(tell(Refusal.TooManyConnections({ byPeer }), undefined).error.status, status)
    }
  })

  it("is a 404 to a peer that proves nothing, or the wrong thing", () => {
    for (
      const refusal of [
        Refusal.PeerUnproved(),
        Refusal.PeerProofWrong(),
        Refusal.PeerKeyUnknown({ accepted: ["a", "b"] }),
        Refusal.PeerClockDiffers({ time: 0 })
      ]
    ) {
      assert.strictEqual(tell(refusal, asked("blobs", true)).error.status, 404)
    }
    assert.deepStrictEqual(tell(Refusal.PeerKeyUnknown({ accepted: ["a", "b"] }), undefined).headers, {
      "x-spegel-keys": "a b"
    })
    assert.deepStrictEqual(tell(Refusal.PeerClockDiffers({ time: 5 }), undefined).headers, { "x-spegel-time": "5" })
  })

  it("is a challenge only if a tool asks how to log in", () => {
    for (const tokens of [true, false]) {
      const { error, headers } = tell(Refusal.Unauthorized({ tokens }), undefined)
      assert.strictEqual(error.status, 401)
      assert.match(String(headers?.["www-authenticate"]), /^Basic /)
      assert.strictEqual(error.message.includes("a node's token"), tokens)
    }
  })

  it("tells the size of what a range lies outside of", () => {
    const error = new RangeNotSatisfiable({ size: 10 })
    const told = tell(Refusal.RangeOutside({ error, content: digest }), asked("blobs", false))
    assert.deepStrictEqual([told.error.status, told.headers], [416, { "content-range": "bytes */10" }])
  })

  it("names what a tag's request lacks", () => {
    const told = tell(Refusal.Ambiguous({ repository: "team/app", registries: ["a.example", "b.example"] }), undefined)
    assert.strictEqual(told.error.code, "NAME_UNKNOWN")
    assert.include(told.error.message, "a.example and b.example both hold team/app")
  })
})
