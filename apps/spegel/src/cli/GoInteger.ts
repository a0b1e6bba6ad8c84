/** Whole numbers as Go reads them (`strconv.ParseInt` with base 0): `10`, `+10`, `1_000`, `0xff`, `0o17`, `017`, `0b11`. */
import { Option } from "effect"
import { textSchema } from "./TextSchema.ts"

/** A base by its prefix; digits may have single underscores between them, and after the prefix. */
const forms: ReadonlyArray<readonly [form: RegExp, base: string]> = [
  [/^0[xX]((?:_?[0-9a-fA-F])+)$/, "0x"],
  [/^0[bB]((?:_?[01])+)$/, "0b"],
  [/^0[oO]?((?:_?[0-7])+)$/, "0o"],
  [/^(0|[1-9](?:_?[0-9])*)$/, ""]
]

/** The number; none if the text is not one, or if a double cannot hold it exactly. */
export const parse = (text: string): Option.Option<number> => {
  const [, sign = "", digits = ""] = /^([+-]?)(.*)$/.exec(text) ?? []
  for (const [form, base] of forms) {
    const matched = form.exec(digits)?.[1]
    if (matched === undefined) continue
    const number = Number(base + matched.replaceAll("_", ""))
    return Number.isSafeInteger(number) ? Option.some(sign === "-" ? -number : number) : Option.none()
  }
  return Option.none()
}

/** A number from `min` to `max`; `of` says what it counts, such as "a number of peers". */
export const between = (of: string, min: number, max: number) =>
  textSchema<number>({
    expected: `${of} from ${min} to ${max}`,
    parse: (text) => Option.filter(parse(text), (number) => number >= min && number <= max),
    print: String
  })
