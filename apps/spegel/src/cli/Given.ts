/** Text that a user gave, and its decoding: a wrong value is reported with the place where it was given. */
import { Effect, Schema } from "effect"
import { CliError } from "effect/cli"

export interface Given {
  /** The flag (`--name`) or the environment variable that gave the text. */
  readonly source: string
  readonly text: string
}

/** The error for a text that is not a value. */
export const wrong = ({ source, text }: Given, reason: string) =>
  new CliError.ValidationError({ message: `${source}=${JSON.stringify(text)}: ${reason}` })

/** Decodes a text; fails with `ValidationError`, which names its source and what was expected. */
export const decodeWith = <A>(schema: Schema.Codec<A, string>) => {
  const decode = Schema.decodeEffect(schema)
  return (given: Given): Effect.Effect<A, CliError.ValidationError> =>
    // The error names the text beside its source already.
    Effect.mapError(decode(given.text), ({ message }) => wrong(given, message.replace(/, got [^]*$/, "")))
}
