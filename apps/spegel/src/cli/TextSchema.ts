/** Schemas of what users write: text to a value, with words for what it should be. */
import { Effect, type Option, Schema, SchemaIssue, SchemaTransformation } from "effect"

/** A schema from a function that gives none for text that is not a value; `expected` tells the user what is. */
export const textSchema = <A>(options: {
  readonly expected: string
  readonly parse: (text: string) => Option.Option<A>
  readonly print: (value: A) => string
}): Schema.Codec<A, string> =>
  Schema.String.pipe(Schema.decodeTo(
    Schema.declare((value): value is A => value !== undefined),
    SchemaTransformation.transformEffect<A, string>({
      decode: (text, parseOptions) =>
        Effect.fromOption(options.parse(text)).pipe(
          Effect.mapError(() => new SchemaIssue.InvalidValue({ expected: options.expected }, text, parseOptions))
        ),
      encode: (value) => Effect.succeed(options.print(value))
    })
  ))
