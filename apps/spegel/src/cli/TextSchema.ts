/** Schemas of what users write: text to a value, with words for what it should be. */
import { Effect, Option, Schema, SchemaIssue, SchemaTransformation } from "effect"

/** A schema from a function that gives none for a text that is not a value; `expected` tells the user what is. */
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

/** One of some words. */
export const wordSchema = <Word extends string>(expected: string, words: ReadonlyArray<Word>) =>
  textSchema<Word>({
    expected,
    parse: (text) => Option.fromUndefinedOr(words.find((word) => word === text)),
    print: (word) => word
  })

/** A text that a pattern matches as a whole. */
export const patternSchema = (expected: string, pattern: RegExp) =>
  textSchema<string>({
    expected,
    parse: (text) => Option.filter(Option.some(text), (text) => pattern.test(text)),
    print: (text) => text
  })

/** A value of `schema`, or none for an empty text. */
export const optional = <A>(schema: Schema.Codec<A, string>): Schema.Codec<Option.Option<A>, string> => {
  const [decode, encode] = [Schema.decodeEffect(schema), Schema.encodeEffect(schema)]
  return Schema.String.pipe(Schema.decodeTo(
    Schema.declare((value): value is Option.Option<A> => Option.isOption(value)),
    SchemaTransformation.transformEffect<Option.Option<A>, string>({
      decode: (text) =>
        text === "" ? Effect.succeedNone : Effect.mapError(Effect.asSome(decode(text)), ({ issue }) => issue),
      encode: Option.match({
        onNone: () => Effect.succeed(""),
        onSome: (value) => Effect.mapError(encode(value), ({ issue }) => issue)
      })
    })
  ))
}
