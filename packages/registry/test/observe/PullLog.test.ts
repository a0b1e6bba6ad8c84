import { assert, describe, it } from "@effect/vitest"
import { type PullEvent, PullLog } from "@spegel-ts/registry/PullLog"
import { Effect } from "effect"
import { event } from "./PullEvents.ts"

describe("PullLog", () => {
  it.effect("keeps the last requests, though peers ask many questions meanwhile", () =>
    Effect.gen(function*() {
      const log = yield* PullLog
      const record = (facts: Partial<PullEvent>) => log.record(event(facts))
      for (let number = 0; number < 2000; number++) {
        yield* record({ content: `pull ${number}` })
        yield* record({ method: "HEAD", mirrored: true, content: `question ${number}` })
      }
      const contents = (yield* log.recent).map(({ content }) => content)
      assert.lengthOf(contents, 512 + 128)
      assert.deepStrictEqual(contents.slice(0, 4), ["question 1999", "pull 1999", "question 1998", "pull 1998"])
      assert.strictEqual(contents.at(-1), "pull 1488")
    }).pipe(Effect.provide(PullLog.layer)))
})
