import { assert, describe, it } from "@effect/vitest"
import * as DistributionError from "@spegel-ts/oci/DistributionError"

describe("DistributionError", () => {
  it("writes the body that the specification gives errors", () => {
    const error = DistributionError.blobUnknown("no peer has \"it\"", { digest: "sha256:abc" })
    assert.deepStrictEqual(JSON.parse(error.body()), {
      errors: [{ code: "BLOB_UNKNOWN", message: "no peer has \"it\"", detail: { digest: "sha256:abc" } }]
    })
    // The detail is optional, and then absent.
    assert.strictEqual(
      DistributionError.nameInvalid("no").body(),
      "{\"errors\":[{\"code\":\"NAME_INVALID\",\"message\":\"no\"}]}"
    )
  })

  it("gives each code its status", () => {
    const { blobUnknown, digestInvalid, rangeInvalid, unauthorized, unsupported } = DistributionError
    assert.deepStrictEqual(
      [digestInvalid, unauthorized, blobUnknown, unsupported, rangeInvalid].map((make) => {
        const { code, status } = make("")
        return [status, code]
      }),
      [
        [400, "DIGEST_INVALID"],
        [401, "UNAUTHORIZED"],
        [404, "BLOB_UNKNOWN"],
        [405, "UNSUPPORTED"],
        [416, "RANGE_INVALID"]
      ]
    )
  })
})
