import { assert, describe, it } from "@effect/vitest"
import * as AnswerProof from "@spegel-ts/registry/internal/auth/AnswerProof"
import * as RequestProof from "@spegel-ts/registry/internal/auth/RequestProof"
import { foreignRing, ring } from "./Keys.ts"

const key = ring.current("registry")
const request: RequestProof.SignedRequest = {
  receiver: "12D3KooB",
  method: "GET",
  target: "/v2/team/app/blobs/sha256:00?ns=registry.example",
  range: "bytes=10-19",
  said: []
}
const nonce = RequestProof.newNonce()
const time = 1_700_000_000_000

describe("RequestProof", () => {
  const header = RequestProof.print(key, request, time, nonce)
  const proof = RequestProof.parse(header)
  if (proof === undefined) throw new Error("not a proof")

  it("has the form that all versions agree on", () => {
    assert.match(header, /^v1 [0-9a-f]{16} 1700000000000 [\w-]{22} [\w-]{43}$/)
    assert.deepStrictEqual([proof.keyId, proof.time, proof.nonce], [key.id, time, nonce])
    const parts = ["request", request.receiver, "GET", request.target, "bytes=10-19", String(time), nonce]
    assert.deepStrictEqual(proof.signature, key.sign(parts))
  })

  it("is right for the request that it was made for, and for no other", () => {
    assert.isTrue(RequestProof.isRight(key, request, proof))
    const others: ReadonlyArray<Partial<RequestProof.SignedRequest>> = [
      { receiver: "12D3KooC" },
      { method: "HEAD" },
      { target: "/v2/team/app/blobs/sha256:00" },
      { range: undefined },
      { range: "bytes=10-20" },
      { said: ["x-spegel-suspect", "true"] }
    ]
    for (const other of others) {
      assert.isFalse(RequestProof.isRight(key, { ...request, ...other }, proof), JSON.stringify(other))
    }
    assert.isFalse(RequestProof.isRight(key, request, { ...proof, time: time + 1 }))
    assert.isFalse(RequestProof.isRight(key, request, { ...proof, nonce: RequestProof.newNonce() }))
    assert.isFalse(RequestProof.isRight(foreignRing.current("registry"), request, proof))
    // A key for another purpose.
    assert.isFalse(RequestProof.isRight(ring.current("router"), request, proof))
  })

  it("is not read from anything else", () => {
    const [, id = "", , , signature = ""] = header.split(" ")
    const others = [
      "",
      "v1",
      `${header} `,
      ` ${header}`,
      `${header}, ${header}`,
      header.replace("v1", "v2"),
      header.replace(id, id.toUpperCase().padEnd(17, "A")),
      header.replace(String(time), "-1"),
      header.replace(String(time), "1e9"),
      header.replace(String(time), "1".repeat(16)),
      header.replace(nonce, nonce.slice(1)),
      header.replace(signature, `${signature}=`),
      header.replace(signature, signature.slice(1)),
      "v1 ".repeat(5000)
    ]
    for (const other of others) assert.isUndefined(RequestProof.parse(other), other.slice(0, 100))
  })
})

describe("AnswerProof", () => {
  const expected = { key, nonce }
  const headers = {
    "docker-content-digest": "sha256:00",
    "content-length": 10,
    "content-type": "application/octet-stream",
    "content-range": "bytes 10-19/100",
    "accept-ranges": "bytes"
  }
  const sent = AnswerProof.sign(expected, 206, headers)
  const received = new Map(Object.entries(sent).map(([name, value]) => [name, String(value)]))

  it("leaves an answer to an unsigned request as it is", () => {
    assert.strictEqual(AnswerProof.sign(undefined, 206, headers), headers)
  })

  it("has the form that all versions agree on", () => {
    const parts = ["answer", nonce, "206", "sha256:00", "10", "application/octet-stream", "bytes 10-19/100", ""]
    assert.strictEqual(sent["x-spegel-auth"], `v1 ${key.id} ${key.sign(parts).toString("base64url")}`)
    const refused = AnswerProof.sign(expected, 404, { "content-length": 2, "x-spegel-time": "123" })
    const refusedParts = ["answer", nonce, "404", "", "2", "", "", "123"]
    assert.strictEqual(refused["x-spegel-auth"], `v1 ${key.id} ${key.sign(refusedParts).toString("base64url")}`)
  })

  it("is right for this answer to this request, and for no other", () => {
    assert.isTrue(AnswerProof.isRight(expected, { status: 206, headers: received }))
    assert.isFalse(AnswerProof.isRight(expected, { status: 200, headers: received }))
    for (const name of ["docker-content-digest", "content-length", "content-type", "content-range", "x-spegel-time"]) {
      for (const value of [undefined, "1"]) {
        const changed = new Map(received)
        if (value === undefined) changed.delete(name)
        else changed.set(name, value)
        if (changed.get(name) === received.get(name)) continue
        assert.isFalse(AnswerProof.isRight(expected, { status: 206, headers: changed }), `${name}: ${value}`)
      }
    }
    const other = { key, nonce: RequestProof.newNonce() }
    assert.isFalse(AnswerProof.isRight(other, { status: 206, headers: received }))
    const foreign = { key: foreignRing.current("registry"), nonce }
    assert.isFalse(AnswerProof.isRight(foreign, { status: 206, headers: received }))
    const named = String(sent["x-spegel-auth"]).replace(key.id, foreignRing.current("registry").id)
    for (const header of ["", "v1", `v1 ${key.id}`, named, `${String(sent["x-spegel-auth"])} `, "x".repeat(10_000)]) {
      const changed = new Map(received).set("x-spegel-auth", header)
      assert.isFalse(AnswerProof.isRight(expected, { status: 206, headers: changed }), header.slice(0, 100))
    }
  })
})
