/** Lines for people at a terminal: coloured where that is wanted, and without control characters, which names may have. */
import { Config, Effect } from "effect"

export interface Terminal {
  readonly good: (text: string) => string
  readonly bad: (text: string) => string
  readonly quiet: (text: string) => string
}

/** A name from the network must not move the cursor. */
export const printable = (text: string): string => text.replaceAll(/\p{Cc}/gu, "�")

const text = (name: string) => Config.withDefault(Config.String(name), "")

/** Coloured on a terminal, unless the environment has `NO_COLOR` (https://no-color.org) or its `TERM` is `dumb`. */
export const standardOutput: Effect.Effect<Terminal> = Effect.gen(function*() {
  const isPlain = !process.stdout.isTTY || (yield* text("NO_COLOR")) !== "" || (yield* text("TERM")) === "dumb"
  const paint = (code: number) => (text: string) =>
    isPlain ? printable(text) : `\u001b[${code}m${printable(text)}\u001b[0m`
  return { good: paint(32), bad: paint(31), quiet: paint(2) }
}).pipe(Effect.orDie)
