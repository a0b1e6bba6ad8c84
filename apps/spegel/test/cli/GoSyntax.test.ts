import { assert, describe, it } from "@effect/vitest"
import * as CommaList from "@spegel-ts/spegel/cli/CommaList"
import { GoBoolean } from "@spegel-ts/spegel/cli/GoBoolean"
import { GoDuration, PositiveGoDuration } from "@spegel-ts/spegel/cli/GoDuration"
import * as GoInteger from "@spegel-ts/spegel/cli/GoInteger"
import { Duration, Option, Schema } from "effect"

/** Values as Go 1.26 reads them; none where it refuses. */
const durations: Readonly<Record<string, number | undefined>> = {
  "0": 0,
  "+0": 0,
  "0s": 0,
  "20ms": 20,
  ".5s": 500,
  "1.s": 1000,
  "+5s": 5000,
  "1m30s": 90_000,
  "1h1h": 7_200_000,
  "1.5h30m": 7_200_000,
  "500us": 0.5,
  "500µs": 0.5,
  "500μs": 0.5,
  "10ns": 0.00001,
  "1.0000000001s": 1000,
  // Longer than a timer of Node can wait, which is as good.
  "2562047h47m16.854775807s": 2 ** 31 - 1,
  "": undefined,
  "+": undefined,
  ".s": undefined,
  "00": undefined,
  "5": undefined,
  "s": undefined,
  "1d": undefined,
  "1 s": undefined,
  "1s ": undefined,
  "1S": undefined,
  "1e3s": undefined,
  "１s": undefined,
  "+-1s": undefined,
  "1s-1s": undefined,
  "2562047h47m16.854775808s": undefined,
  "99999999999999999999h": undefined,
  // Go reads it; no timeout can be negative.
  "-1s": undefined,
  "-0.5ms": undefined
}

const integers: Readonly<Record<string, number | undefined>> = {
  "0": 0,
  "10": 10,
  "+10": 10,
  "-3": -3,
  "1_000": 1000,
  "0x1F": 31,
  "0X_1f": 31,
  "0b101": 5,
  "0o17": 15,
  "017": 15,
  "0_7": 7,
  "": undefined,
  "+": undefined,
  "08": undefined,
  "1__0": undefined,
  "_1": undefined,
  "1_": undefined,
  "1.0": undefined,
  "1e3": undefined,
  " 1": undefined,
  "0x": undefined,
  "99999999999999999999": undefined
}

const lists: Readonly<Record<string, ReadonlyArray<string> | undefined>> = {
  "": [],
  ",, ,": [],
  "a": ["a"],
  "a,b": ["a", "b"],
  " a , b ,": ["a", "b"],
  "a\nb\r\nc": ["a", "b", "c"],
  [`"a,b",c`]: ["a,b", "c"],
  [`a, "b,c"`]: ["a", "b,c"],
  [`"say ""a"""`]: [`say "a"`],
  [`":v\\d{1,3}$",:dev$`]: [":v\\d{1,3}$", ":dev$"],
  [":v\\d{1,3}$,:dev$"]: [":v\\d{1,3}$", ":dev$"],
  ["a{,3},b{2,},c{1}"]: ["a{,3}", "b{2,}", "c{1}"],
  ["{a,b}"]: ["{a", "b}"],
  [`"a`]: undefined,
  [`a"b`]: undefined,
  [`"a"b`]: undefined,
  [`a,"b`]: undefined
}

describe("Go's words", () => {
  for (const [text, millis] of Object.entries(durations)) {
    it(`duration ${JSON.stringify(text)}: ${millis ?? "none"}`, () => {
      const duration = Schema.decodeOption(GoDuration)(text)
      assert.deepStrictEqual(Option.getOrUndefined(Option.map(duration, Duration.toMillis)), millis)
      const positive = Schema.decodeOption(PositiveGoDuration)(text)
      assert.strictEqual(Option.isSome(positive), millis !== undefined && millis > 0)
    })
  }

  for (const [text, number] of Object.entries(integers)) {
    it(`number ${JSON.stringify(text)}: ${number ?? "none"}`, () => {
      assert.strictEqual(Option.getOrUndefined(GoInteger.parse(text)), number)
    })
  }

  for (const [text, values] of Object.entries(lists)) {
    it(`list ${JSON.stringify(text)}: ${JSON.stringify(values) ?? "none"}`, () => {
      assert.deepStrictEqual(Option.getOrUndefined(CommaList.parse(text)), values)
    })
  }

  it("booleans are true and false, in Go's spellings", () => {
    const read = (text: string) => Option.getOrUndefined(Schema.decodeOption(GoBoolean)(text))
    assert.deepStrictEqual(["1", "t", "T", "true", "TRUE", "True"].map(read), Array.from({ length: 6 }, () => true))
    assert.deepStrictEqual(["0", "f", "F", "false", "FALSE", "False"].map(read), Array.from({ length: 6 }, () => false))
    for (const text of ["", "yes", "on", "tRUE", " true", "2"]) assert.isUndefined(read(text))
  })
})
