import { assert, describe, it } from "@effect/vitest"
import * as ResponseHead from "@spegel-ts/transfer/internal/peer/ResponseHead"
import { Result, Schema } from "effect"

const parse = (...lines: ReadonlyArray<string>) =>
  ResponseHead.parse(Buffer.from(`${lines.join("\r\n")}\r\n\r\n`, "latin1"))
const refused = (...lines: ReadonlyArray<string>) => Result.getOrThrow(Result.flip(parse(...lines))).reason

describe("ResponseHead", () => {
  it("parses a registry's response", () => {
    const head = Result.getOrThrow(parse("HTTP/1.1 200 OK", "Content-Length: 42", "Content-Type:  text/plain  "))
    assert.deepStrictEqual([head.status, head.contentLength, head.headers.get("content-type")], [200, 42, "text/plain"])
    assert.strictEqual(Result.getOrThrow(parse("HTTP/1.1 204")).contentLength, 0)
  })

  it("refuses what could be read in two ways", () => {
    for (
      const [lines, reason] of [
        [["HTTP/1.0 200 OK", "content-length: 1"], "status line"],
        [["HTTP/1.1 100 Continue"], "status line"],
        [["HTTP/1.1 200 OK", "content-length: 1", "Content-Length: 2"], "twice"],
        [["HTTP/1.1 200 OK", "content-length: 1", "content-length: 1"], "twice"],
        [["HTTP/1.1 200 OK", "content-length: 1, 1"], "Content-Length"],
        [["HTTP/1.1 200 OK", "content-length: +1"], "Content-Length"],
        [["HTTP/1.1 200 OK", "content-length: 0x10"], "Content-Length"],
        [["HTTP/1.1 200 OK", "transfer-encoding: chunked"], "unknown length"],
        [["HTTP/1.1 200 OK", "content-length: 1", "transfer-encoding: identity"], "unknown length"],
        [["HTTP/1.1 200 OK", "content-encoding: gzip", "content-length: 1"], "coded"],
        [["HTTP/1.1 200 OK", "x: a", " folded", "content-length: 1"], "malformed"],
        [["HTTP/1.1 200 OK", "content-length : 1"], "malformed"],
        [["HTTP/1.1 200 OK", "x: \u0000", "content-length: 1"], "malformed"],
        [["HTTP/1.1 200 OK", `x: ${"y".repeat(ResponseHead.maxHeadSize)}`], "longer than"],
        [["HTTP/1.1 200 OK"], "Content-Length"]
      ] as const
    ) {
      assert.include(refused(...lines), reason)
    }
  })

  it.prop("any bytes give a head or an error", [Schema.Uint8Array], ([bytes]) => {
    ResponseHead.parse(Buffer.from(bytes))
  })

  it("parses a content range, and nothing that only looks like one", () => {
    const rangeIn = (...fields: ReadonlyArray<string>) =>
      Result.getOrThrow(parse("HTTP/1.1 206 Partial Content", "content-length: 5", ...fields)).contentRange
    assert.deepStrictEqual(rangeIn("Content-Range: bytes 5-9/10"), { start: 5, end: 9, size: 10 })
    assert.isUndefined(rangeIn())
    for (const value of ["", "bytes 9-5/10", "bytes 0-10/10", "bytes */10", "bytes 0-9/*"]) {
      assert.isUndefined(rangeIn(`content-range: ${value}`))
    }
  })
})
