/**
 * Regular expressions over the names of images, in the syntax of RE2, which Go and so Spegel uses. Matching takes time
 * linear in the name: anybody may ask for any name, and a JavaScript expression could then stop the mirror.
 * `docs/decisions/0001-re2js.md` has the figures.
 */
import { Data, Effect } from "effect"

/** A compiled expression. */
export interface NamePattern {
  /** True when any part of the name matches. */
  readonly matches: (name: string) => boolean
}

/** RE2 does not accept the expression. */
export class InvalidPattern extends Data.TaggedError("InvalidPattern")<{
  readonly expression: string
  readonly reason: string
}> {
  override get message() {
    return `${JSON.stringify(this.expression)} is not a regular expression of RE2: ${this.reason}`
  }
}

/**
 * Compiles an expression, or fails with `InvalidPattern`. The engine takes memory, and is loaded with the first one.
 */
export const compile = Effect.fnUntraced(function*(expression: string) {
  const { RE2JS } = yield* Effect.promise(() => import("re2js"))
  return yield* Effect.try({
    try: (): NamePattern => {
      const compiled = RE2JS.compile(expression)
      return { matches: (name) => compiled.test(name) }
    },
    catch: (cause) =>
      new InvalidPattern({
        expression,
        reason: (cause instanceof Error ? cause.message : String(cause)).replace("error parsing regexp: ", "")
      })
  })
})
