import { assert, describe, it } from "@effect/vitest"
import * as ByteRange from "@spegel-ts/oci/ByteRange"
import { Option, Result, Schema } from "effect"

const Position = Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 40 })))

const range = (header: string | undefined, size: number) => Result.getOrThrow(ByteRange.parse(header, size))

describe("ByteRange", () => {
  it.prop("selects the bytes that the RFC says", [Position, Position, Position], ([first, last, size]) => {
    const bytes = Array.from({ length: size }, (_, index) => index)
    for (
      const [header, selected] of [
        [`bytes=${first}-${last}`, bytes.filter((index) => index >= first && index <= last)],
        [`bytes=${first}-`, bytes.filter((index) => index >= first)],
        [`bytes=-${last}`, bytes.slice(Math.max(0, size - last), size)]
      ] as const
    ) {
      const parsed = ByteRange.parse(header, size)
      if (header.startsWith(`bytes=${first}-${last}`) && last < first && !header.endsWith("-")) {
        assert.deepStrictEqual(parsed, Result.succeed(Option.none()))
      } else if (size === 0) {
        assert.deepStrictEqual(parsed, Result.succeed(Option.none()))
      } else if (selected.length === 0) {
        assert.isTrue(Result.isFailure(parsed), header)
      } else {
        const { end, start } = Option.getOrThrow(Result.getOrThrow(parsed))
        assert.deepStrictEqual(bytes.slice(start, end), selected)
      }
    }
  })

  it("ignores headers that it need not understand", () => {
    for (
      const header of [
        undefined,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "items=0-1",
        "bytes=0-1,3-4",
        "bytes=a-b",
        "bytes=1"
      ]
    ) {
      assert.deepStrictEqual(range(header, 10), Option.none())
    }
  })

  it("does not lose the order of huge positions", () => {
    assert.deepStrictEqual(range("bytes=9007199254740993-9007199254740992", 10), Option.none())
    for (const digits of [19, 20, 400]) {
      const huge = "9".repeat(digits)
      assert.isTrue(Result.isFailure(ByteRange.parse(`bytes=${huge}-`, 10)))
      assert.deepStrictEqual(range(`bytes=4-${huge}`, 10), Option.some({ start: 4, end: 10 }))
      assert.deepStrictEqual(range(`bytes=-${huge}`, 10), Option.some({ start: 0, end: 10 }))
    }
  })

  it("writes Content-Range as the RFC's examples do (section 14.4)", () => {
    assert.strictEqual(ByteRange.contentRange({ start: 42, end: 1234 }, 1234), "bytes 42-1233/1234")
    assert.strictEqual(ByteRange.unsatisfiedRange(1234), "bytes */1234")
  })

  it("finds where a client resumes", () => {
    assert.deepStrictEqual(ByteRange.openStart("bytes=42-"), Option.some(42))
    for (const header of [undefined, "bytes=42-43", "bytes=-42"]) {
      assert.deepStrictEqual(ByteRange.openStart(header), Option.none())
    }
  })
})
