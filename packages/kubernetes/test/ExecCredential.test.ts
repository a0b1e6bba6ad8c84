import { assert, describe, it } from "@effect/vitest"
import * as ExecCredential from "@spegel-ts/kubernetes/internal/access/ExecCredential"
import * as JumpingClock from "@spegel-ts/testing/kubernetes/JumpingClock"
import { Clock, Effect } from "effect"
import { TestClock } from "effect/testing"

const hour = 3_600_000

/** A plugin whose token lives for an hour of the time that is true; it prints another token each time. */
const start = Effect.gen(function*() {
  const { clock, jump } = JumpingClock.make(yield* Clock.Clock)
  const script = `
    const expires = new Date(${hour}).toISOString()
    console.log(JSON.stringify({ status: { token: String(process.hrtime.bigint()), expirationTimestamp: expires } }))
  `
  const credential = ExecCredential.make(
    {
      apiVersion: "client.authentication.k8s.io/v1",
      command: process.execPath,
      args: ["--eval", script]
    },
    { environment: {}, directory: "/", cluster: {} }
  )
  const token = Effect.map(credential, (status) => JSON.stringify(status)).pipe(
    Effect.provideService(Clock.Clock, clock)
  )
  return { jump, token }
})

describe("ExecCredential", () => {
  for (
    const [how, by] of [["not set", 0], ["set back by an hour", -hour], ["set forward by a day", 24 * hour]] as const
  ) {
    it.effect(`is kept as long as it lives where the clock is ${how}`, () =>
      Effect.gen(function*() {
        const { jump, token } = yield* start
        const first = yield* token
        jump(by)
        yield* TestClock.adjust("50 minutes")
        assert.strictEqual(yield* token, first)
        yield* TestClock.adjust("11 minutes")
        assert.notStrictEqual(yield* token, first)
      }))
  }
})
