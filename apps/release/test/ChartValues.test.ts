import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import * as GoSpegelValues from "./GoSpegelValues.ts"

interface Schema {
  readonly properties?: Readonly<Record<string, Schema>>
  readonly additionalProperties?: boolean
}

const schema = JSON.parse(
  readFileSync(new URL("../../../charts/spegel/values.schema.json", import.meta.url), "utf8")
) as Schema

/** The keys that a schema does not let through. */
const refusedKeys = (values: unknown, schema: Schema, path = ""): ReadonlyArray<string> =>
  typeof values !== "object" || values === null || schema.properties === undefined ?
    [] :
    Object.entries(values).flatMap(
      ([key, value]) => {
        const found = schema.properties?.[key]
        if (found !== undefined) return refusedKeys(value, found, `${path}${key}.`)
        return schema.additionalProperties === false ? [path + key] : []
      }
    )

describe("the chart's schema", () => {
  // helm itself judges the values too: `npm run test:chart`.
  it("takes every key that charts of Go Spegel have, and none that nobody has", () => {
    assert.deepStrictEqual(refusedKeys(GoSpegelValues.current, schema), [])
    assert.deepStrictEqual(refusedKeys(GoSpegelValues.former, schema), [])
    assert.deepStrictEqual(refusedKeys({ spegel: { mirorTargets: [] }, imag: {} }, schema), [
      "spegel.mirorTargets",
      "imag"
    ])
  })
})
