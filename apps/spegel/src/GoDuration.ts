/** Durations as Go writes them: `20ms`, `1m30s`, `1.5h`. */
import { Duration, Option } from "effect"
import { textSchema } from "./Flags.ts"

const unitMillis = new Map([
  ["ns", 1e-6],
  ["us", 1e-3],
  ["µs", 1e-3],
  ["ms", 1],
  ["s", 1000],
  ["m", 60_000],
  ["h", 3_600_000]
])

/** Longer than any sensible timeout, and still exact in milliseconds. */
const maxMillis = 366 * 24 * 3_600_000

const parse = (text: string): Option.Option<Duration.Duration> => {
  if (!/^(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h)){1,7}$/.test(text)) return Option.none()
  let millis = 0
  for (const [, number, unit = ""] of text.matchAll(/(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)/g)) {
    millis += Number(number) * (unitMillis.get(unit) ?? 0)
  }
  return millis <= maxMillis ? Option.some(Duration.millis(millis)) : Option.none()
}

export const GoDuration = textSchema<Duration.Duration>({
  expected: "a duration such as 20ms or 1m30s",
  parse,
  print: (duration) => `${Duration.toMillis(duration)}ms`
})
