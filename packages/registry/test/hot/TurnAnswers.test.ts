import { assert, describe, it } from "@effect/vitest"
import { TurnAnswers } from "@spegel-ts/registry/internal/hot/TurnAnswers"
import type { ServerResponse } from "node:http"
import { setImmediate } from "node:timers/promises"

/** A response that notes what it was ended with. */
const response = (ended: Array<string>, destroyed: boolean) => {
  const made = {
    destroyed,
    writeHead: () => made,
    end: (bytes: Uint8Array) => ended.push(String(bytes))
  }
  return made as unknown as ServerResponse
}

describe("TurnAnswers", () => {
  it("sends the answers of a turn at its end, in order, but not to clients that have gone", async () => {
    const answers = new TurnAnswers()
    const ended: Array<string> = []
    const give = (name: string, destroyed = false) =>
      answers.give({ response: response(ended, destroyed), headers: {}, bytes: Buffer.from(name) })
    give("one")
    give("gone", true)
    give("two")
    await Promise.resolve()
    assert.deepStrictEqual(ended, [])
    await setImmediate()
    assert.deepStrictEqual(ended, ["one", "two"])
    give("three")
    await setImmediate()
    assert.deepStrictEqual(ended, ["one", "two", "three"])
  })
})
