/** Flags whose value comes from the command line, else from the environment, else from a default. */
import { Config, Effect, type Option, Schema, SchemaIssue, SchemaTransformation } from "effect"
import { Flag } from "effect/cli"

const describe = (text: string, environment: string, fallback: string) =>
  `${text} (env ${environment}${fallback === "" ? "" : `, default ${fallback}`})`

/** A flag of one value. The default is text too, so that it is read as a user's value is. */
export const one = <A>(options: {
  readonly name: string
  readonly environment: string
  readonly description: string
  readonly schema: Schema.Codec<A, string>
  readonly fallback: string
  readonly metavar: string
}): Flag.Flag<A> =>
  Flag.String(options.name).pipe(
    Flag.withMetavar(options.metavar),
    Flag.withDescription(describe(options.description, options.environment, options.fallback)),
    Flag.withFallbackConfig(Config.String(options.environment)),
    Flag.withDefault(options.fallback),
    Flag.withSchema(options.schema)
  )

/** A flag that may be given several times, or once with commas in between; as an environment variable with commas. */
export const many = <A>(options: {
  readonly name: string
  readonly environment: string
  readonly description: string
  readonly schema: Schema.Codec<A, string>
  readonly metavar: string
}): Flag.Flag<ReadonlyArray<A>> =>
  Flag.String(options.name).pipe(
    Flag.withMetavar(options.metavar),
    Flag.withDescription(describe(`${options.description}; may be repeated`, options.environment, "")),
    Flag.atLeast(1),
    Flag.withFallbackConfig(Config.map(Config.String(options.environment), (text): ReadonlyArray<string> => [text])),
    Flag.withDefault<ReadonlyArray<string>>([]),
    Flag.map((texts) =>
      texts.flatMap((text) => text.split(",")).map((text) => text.trim()).filter((text) => text !== "")
    ),
    Flag.withSchema(Schema.mutable(Schema.Array(options.schema)))
  )

/** A flag that is on or off: `--name`, `--name=false`. */
export const onOff = (options: {
  readonly name: string
  readonly environment: string
  readonly description: string
  readonly fallback: boolean
}): Flag.Flag<boolean> =>
  Flag.Boolean(options.name).pipe(
    Flag.withDescription(describe(options.description, options.environment, String(options.fallback))),
    Flag.withFallbackConfig(Config.Boolean(options.environment)),
    Flag.withDefault(options.fallback)
  )

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

/**
 * Go Spegel takes several values behind one flag (`--mirrored-registries a b`): gives each a flag of its own, so that
 * its command lines work here.
 */
export const expandLists = (args: ReadonlyArray<string>, lists: ReadonlySet<string>): ReadonlyArray<string> => {
  const expanded: Array<string> = []
  let list: string | undefined
  let first = false
  for (const arg of args) {
    if (arg.startsWith("-")) {
      list = lists.has(arg) ? arg : undefined
      first = true
      expanded.push(arg)
    } else {
      if (list !== undefined && !first) expanded.push(list)
      first = false
      expanded.push(arg)
    }
  }
  return expanded
}
