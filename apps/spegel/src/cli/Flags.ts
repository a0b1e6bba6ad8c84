/**
 * Flags whose value comes from the command line, else from the environment, else from a default. The name of the variable
 * is made of the flag's: `--registry-addr` is `REGISTRY_ADDR`. A wrong value is named by where it came from.
 */
import { Config, Effect, Schema } from "effect"
import { CliError, Flag, Param, Primitive } from "effect/cli"
import * as CommaList from "./CommaList.ts"
import { GoBoolean } from "./GoBoolean.ts"

/** The environment variable of a flag. */
export const environmentName = (flag: string): string => flag.toUpperCase().replaceAll("-", "_")

/** Names of the flags that take several values. */
const lists = new Set<string>()
export const listNames: ReadonlySet<string> = lists

/** What was given, and by what. */
export interface Given {
  readonly source: string
  readonly text: string
}

const fromEnvironment = (name: string): Config.Config<Given> => {
  const variable = environmentName(name)
  return Config.map(Config.String(variable), (text) => ({ source: `environment variable ${variable}`, text }))
}

const describe = (text: string, name: string, fallback: string) =>
  `${text} (env ${environmentName(name)}${fallback === "" ? "" : `, default ${fallback}`})`

const wrong = ({ source, text }: Given, reason: string) =>
  new CliError.ValidationError({ message: `${source}=${JSON.stringify(text)}: ${reason}` })

/** Decodes what was given; a wrong value is told with its source. */
export const decodeWith = <A>(schema: Schema.Codec<A, string>) => {
  const decode = Schema.decodeEffect(schema)
  return (given: Given) =>
    // The text is told beside its source already.
    Effect.mapError(decode(given.text), ({ message }) => wrong(given, message.replace(/, got [^]*$/, "")))
}

/** What was given last decides, as in Go: what a chart passes on may say a flag again. */
const last = (name: string, texts: ReadonlyArray<string>): Given => ({ source: `--${name}`, text: texts.at(-1) ?? "" })

/** A flag of one value. The default is text too, so that it is read as a user's value is. */
export const one = <A>(options: {
  readonly name: string
  readonly description: string
  readonly schema: Schema.Codec<A, string>
  readonly fallback: string
  readonly metavar: string
}): Flag.Flag<A> =>
  Flag.String(options.name).pipe(
    Flag.withMetavar(options.metavar),
    Flag.withDescription(describe(options.description, options.name, options.fallback)),
    Flag.atLeast(1),
    Flag.map((texts) => last(options.name, texts)),
    Flag.withFallbackConfig(fromEnvironment(options.name)),
    Flag.withDefault<Given>({ source: `--${options.name}`, text: options.fallback }),
    Flag.mapEffect(decodeWith(options.schema))
  )

interface GivenList {
  readonly source: string
  readonly texts: ReadonlyArray<string>
}

/** A flag that may be given several times; an environment variable has all of its values (see `CommaList`). */
export const many = <A>(options: {
  readonly name: string
  readonly description: string
  readonly schema: Schema.Codec<A, string>
  readonly metavar: string
  /** Whether a comma on the command line is part of a value; else it separates two values. */
  readonly commas?: "part of a value"
}): Flag.Flag<ReadonlyArray<A>> => {
  const { commas, description, metavar, name, schema } = options
  lists.add(name)
  const decode = decodeWith(schema)
  return Flag.String(name).pipe(
    Flag.withMetavar(metavar),
    Flag.withDescription(describe(`${description}; may be repeated`, name, "")),
    Flag.atLeast(1),
    Flag.map((texts): Given | GivenList => ({
      source: `--${name}`,
      texts: commas === undefined ? texts.flatMap((text) => text.split(",")) : texts
    })),
    Flag.withFallbackConfig(fromEnvironment(name)),
    Flag.withDefault<GivenList>({ source: `--${name}`, texts: [] }),
    Flag.mapEffect(Effect.fnUntraced(function*(given) {
      const texts = "texts" in given ? given.texts : yield* Effect.fromOption(CommaList.parse(given.text)).pipe(
        Effect.mapError(() =>
          wrong(given, "expected values with commas in between; double quotes go around a whole value")
        )
      )
      const values = texts.map((text) => text.trim()).filter((text) => text !== "")
      return yield* Effect.forEach(values, (text) => decode({ source: given.source, text }))
    }))
  )
}

/** Takes any text where a flag without a value means true. */
const booleanText: Primitive.Primitive<string> = Object.assign(Object.create(Primitive.Boolean), {
  parse: Effect.succeed
})

/** A flag that is on or off: `--name`, `--name=false`. */
export const onOff = (options: {
  readonly name: string
  readonly description: string
  readonly fallback: boolean
}): Flag.Flag<boolean> =>
  Param.makeSingle({ kind: Param.flagKind, name: options.name, primitiveType: booleanText }).pipe(
    Flag.withDescription(describe(options.description, options.name, String(options.fallback))),
    Flag.atLeast(1),
    // A template that has no value for it leaves it empty, which is true for Go.
    Flag.map((texts) => last(options.name, texts.map((text) => text === "" ? "true" : text))),
    Flag.withFallbackConfig(fromEnvironment(options.name)),
    Flag.withDefault<Given>({ source: `--${options.name}`, text: String(options.fallback) }),
    Flag.mapEffect(decodeWith(GoBoolean))
  )
