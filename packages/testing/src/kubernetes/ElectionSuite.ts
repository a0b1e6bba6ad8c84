/** The scenarios as tests over a field of candidates. Needs vitest. */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import type { Field } from "./Field.ts"
import { scenarios } from "./Scenarios.ts"

/**
 * Runs the scenarios over the field that `make` starts, which needs five processes, and checks that there were never two leaders.
 * `missing` says what the machine lacks for it; the suite is skipped then.
 */
export const electionSuite = (options: {
  readonly name: string
  readonly missing: string | undefined
  readonly make: Effect.Effect<Field, unknown, Scope.Scope>
}) => {
  const { make, missing, name } = options
  const note = missing === undefined ? "" : ` (skipped: ${missing})`
  describe.skipIf(missing !== undefined)(`election: ${name}${note}`, { timeout: 120_000 }, () => {
    const scope = Scope.makeUnsafe()
    let field: Field
    beforeAll(async () => {
      field = await Effect.runPromise(Scope.provide(make, scope))
    }, 900_000)
    afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

    for (const { run, title } of scenarios) {
      it.live(title, () =>
        Effect.gen(function*() {
          const figures = yield* run(field)
          for (const { bound, name, unit, value } of figures) {
            yield* Effect.log(`${name}: ${value.toFixed(1)} ${unit} (at most ${bound})`)
            assert.isAtMost(value, bound, name)
          }
          assert.deepStrictEqual(field.overlaps(), [], field.log())
        }))
    }
  })
}
