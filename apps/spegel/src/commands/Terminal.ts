/** Lines for people at a terminal: coloured where that is wanted, and without control characters, which names may have. */
import { Effect } from "effect"
import { TerminalCapabilities } from "effect/cli"

/** Colours a text, if the terminal has colours. */
export interface Terminal {
  readonly good: (text: string) => string
  readonly bad: (text: string) => string
  readonly quiet: (text: string) => string
}

/** A name from the network must not move the cursor. */
export const printable = (text: string): string => text.replaceAll(/\p{Cc}/gu, "�")

/** Without colours if standard output is no terminal, or by the environment (https://no-color.org). */
export const standardOutput: Effect.Effect<Terminal> = Effect.map(
  TerminalCapabilities.TerminalCapabilities,
  ({ canColor }) => {
    const paint = (code: number) => (text: string) =>
      canColor ? `\u001b[${code}m${printable(text)}\u001b[0m` : printable(text)
    return { good: paint(32), bad: paint(31), quiet: paint(2) }
  }
)
