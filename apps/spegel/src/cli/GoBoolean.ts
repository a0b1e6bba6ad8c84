/** Booleans as Go reads them (`strconv.ParseBool`). */
import { Option } from "effect"
import { textSchema } from "./TextSchema.ts"

const truths = new Set(["1", "t", "T", "true", "TRUE", "True"])
const falsehoods = new Set(["0", "f", "F", "false", "FALSE", "False"])

/** `true`, `false` and their short forms; nothing else. */
export const GoBoolean = textSchema<boolean>({
  expected: "true or false",
  parse: (text) => truths.has(text) ? Option.some(true) : falsehoods.has(text) ? Option.some(false) : Option.none(),
  print: String
})
