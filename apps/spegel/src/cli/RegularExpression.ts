/** Regular expressions over image names, as users write them in flags. */
import * as NamePattern from "@spegel-ts/oci/NamePattern"
import { Effect, Schema, SchemaIssue, SchemaTransformation } from "effect"

/** A compiled expression, with its text. */
export interface Expression extends NamePattern.NamePattern {
  readonly text: string
}

/** An expression in RE2's syntax. */
export const regularExpression: Schema.Codec<Expression, string> = Schema.String.pipe(Schema.decodeTo(
  Schema.declare((value): value is Expression => value !== undefined),
  SchemaTransformation.transformEffect<Expression, string>({
    decode: (text, options) =>
      NamePattern.compile(text).pipe(
        Effect.map(({ matches }) => ({ text, matches })),
        Effect.mapError(({ reason }) =>
          new SchemaIssue.InvalidValue({ expected: `a regular expression in RE2's syntax (${reason})` }, text, options)
        )
      ),
    encode: ({ text }) => Effect.succeed(text)
  })
))
