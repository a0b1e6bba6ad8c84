/** Prints what an attack came to, as a row of the table in docs/measurements/attacks.md. */
import { Effect } from "effect"

export const note = (attack: string, rogue: "has no key" | "has the key" | "off", found: string) =>
  Effect.sync(() => process.stdout.write(`| ${attack} | ${rogue} | ${found} |\n`))
