/**
 * Settings of commands. A command has them in a table, whose keys decide how users name them: `registryAddr` is the flag
 * `--registry-addr` and the environment variable `REGISTRY_ADDR`. A value comes from the command line, else from the
 * environment, else from the default. `--help` and docs/configuration.md are made of these tables.
 */
import { Config, Effect, type Schema } from "effect"
import { Flag, Param, Primitive } from "effect/cli"
import * as CommaList from "./CommaList.ts"
import { decodeWith, type Given, wrong } from "./Given.ts"
import { GoBoolean } from "./GoBoolean.ts"

/** One setting: what users read about it, and its flag. */
export interface Setting<A> {
  readonly description: string
  /** What a value is called in `--help`; undefined where a flag needs no value. */
  readonly metavar: string | undefined
  /** The default as a user would write it; empty for none. */
  readonly fallback: string
  readonly isRepeatable: boolean
  /** Whether an environment variable can set it as well. */
  readonly hasVariable: boolean
  /** The heading of `--help` and of docs/configuration.md below which it stands; none in a command of few settings. */
  readonly group?: string
  /** The flag, under a name without the dashes. */
  readonly flag: (name: string) => Flag.Flag<A>
}

/** The settings of a command, by the names that its code has for them. */
export type Settings = Readonly<Record<string, Setting<unknown>>>

/** The flag of a setting, without the dashes. */
export const flagName = (setting: string): string => setting.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)

/** The environment variable of a flag. */
export const environmentName = (flag: string): string => flag.toUpperCase().replaceAll("-", "_")

/** The flags of settings, as `Command.make` takes them. */
export const flagsOf = <S extends Settings>(
  settings: S
): { readonly [K in keyof S]: S[K] extends Setting<infer A> ? Flag.Flag<A> : never } =>
  Object.fromEntries(Object.entries(settings).map(([key, { flag }]) => [key, flag(flagName(key))])) as never

/** The values of settings. */
export type Values<S extends Settings> = {
  readonly [K in keyof S]: S[K] extends Setting<infer A> ? A : never
}

/** The settings below one heading. */
export const group = <S extends Settings>(heading: string, settings: S): S =>
  Object.fromEntries(Object.entries(settings).map(([key, setting]) => [key, { ...setting, group: heading }])) as never

/** The setting with its values changed. */
export const map = <A, B>(setting: Setting<A>, change: (value: A) => B): Setting<B> => ({
  ...setting,
  flag: (name) => Flag.map(setting.flag(name), change)
})

const fromEnvironment = (name: string): Config.Config<Given> => {
  const variable = environmentName(name)
  return Config.map(Config.String(variable), (text) => ({ source: `environment variable ${variable}`, text }))
}

const describe = (text: string, name: string, fallback: string) =>
  `${text} (env ${environmentName(name)}${fallback === "" ? "" : `, default ${fallback}`})`

/** The flag of a setting, from one that takes any text. */
const read = <A>(
  flag: Flag.Flag<string>,
  name: string,
  { description, fallback, schema }: {
    readonly description: string
    readonly fallback: string
    readonly schema: Schema.Codec<A, string>
  }
): Flag.Flag<A> =>
  flag.pipe(
    Flag.withDescription(describe(description, name, fallback)),
    Flag.atLeast(1),
    // The last value given wins, as in Go: what a chart passes on may repeat a flag.
    Flag.map((texts): Given => ({ source: `--${name}`, text: texts.at(-1) ?? "" })),
    Flag.withFallbackConfig(fromEnvironment(name)),
    Flag.withDefault<Given>({ source: `--${name}`, text: fallback }),
    Flag.mapEffect(decodeWith(schema))
  )

/** A setting of one value. The default is text too, so that it is read as a user's value is. */
export const one = <A>(options: {
  readonly description: string
  readonly schema: Schema.Codec<A, string>
  readonly fallback: string
  readonly metavar: string
}): Setting<A> => ({
  ...options,
  isRepeatable: false,
  hasVariable: true,
  flag: (name) => read(Flag.withMetavar(Flag.String(name), options.metavar), name, options)
})

interface GivenList {
  readonly source: string
  readonly texts: ReadonlyArray<string>
}

/** A setting of several values, whose flag may be repeated; its variable holds all of them (see `CommaList`). */
export const many = <A>(options: {
  readonly description: string
  readonly schema: Schema.Codec<A, string>
  readonly metavar: string
  /** Whether a comma on the command line is part of a value; else it separates two values. */
  readonly commas?: "part of a value"
}): Setting<ReadonlyArray<A>> => {
  const { commas, metavar, schema } = options
  const description = `${options.description}; may be repeated`
  const decode = decodeWith(schema)
  return {
    description,
    metavar,
    fallback: "",
    isRepeatable: true,
    hasVariable: true,
    flag: (name) =>
      Flag.String(name).pipe(
        Flag.withMetavar(metavar),
        Flag.withDescription(describe(description, name, "")),
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
              wrong(given, "expected values separated by commas; double quotes go around a whole value")
            )
          )
          const values = texts.map((text) => text.trim()).filter((text) => text !== "")
          return yield* Effect.forEach(values, (text) => decode({ source: given.source, text }))
        }))
      )
  }
}

/**
 * Takes any text where a flag without a value means true. A template that has no value for it leaves it empty, which is true for
 * Go.
 */
const booleanText: Primitive.Primitive<string> = Object.assign(Object.create(Primitive.Boolean), {
  parse: (text: string) => Effect.succeed(text === "" ? "true" : text)
})

/** A setting that is on or off: `--name`, `--name=false`. */
export const onOff = (options: {
  readonly description: string
  readonly fallback: boolean
}): Setting<boolean> => {
  const { description } = options
  const fallback = String(options.fallback)
  return {
    description,
    metavar: undefined,
    fallback,
    isRepeatable: false,
    hasVariable: true,
    flag: (name) =>
      read(Param.makeSingle({ kind: Param.flagKind, name, primitiveType: booleanText }), name, {
        description,
        fallback,
        schema: GoBoolean
      })
  }
}

/** A setting that the command line alone can change: an Effect flag without an environment variable. */
export const flagOnly = <A extends boolean | string>({ description, fallback, flag, metavar }: {
  readonly description: string
  readonly fallback: NoInfer<A>
  readonly metavar: string | undefined
  readonly flag: (name: string) => Flag.Flag<A>
}): Setting<A> => ({
  description,
  metavar,
  fallback: String(fallback),
  isRepeatable: false,
  hasVariable: false,
  flag: (name) =>
    flag(name).pipe(
      Flag.withDefault<A>(fallback),
      Flag.withDescription(fallback === "" ? description : `${description} (default ${fallback})`)
    )
})
