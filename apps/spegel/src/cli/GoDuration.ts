/** Durations as Go reads them (`time.ParseDuration`): `20ms`, `1m30s`, `.5h`, `+5s`, `0`. */
import { Duration, Option } from "effect"
import { textSchema } from "./TextSchema.ts"

/** Nanoseconds of each unit. The micro sign (U+00B5) and the Greek letter mu (U+03BC) look alike. */
const units = new Map([
  ["ns", 1n],
  ["us", 1000n],
  ["µs", 1000n],
  ["μs", 1000n],
  ["ms", 1_000_000n],
  ["s", 1_000_000_000n],
  ["m", 60_000_000_000n],
  ["h", 3_600_000_000_000n]
])

/** Go's durations are 64 bits of nanoseconds. */
const maxNanos = 2n ** 63n - 1n

/** The longest wait of a Node timer, about 24 days: longer durations are cut to it. */
const maxMillis = 2 ** 31 - 1

const number = /(\d*)(?:\.(\d*))?(ns|us|µs|μs|ms|s|m|h)/
const whole = new RegExp(`^(?:${number.source})+$`)
const each = new RegExp(number.source, "g")

/** Nanoseconds, negative ones too; none if Go does not accept the text. */
const nanosOf = (text: string): Option.Option<bigint> => {
  const [, sign = "", digits = ""] = /^([+-]?)(.*)$/s.exec(text) ?? []
  if (digits === "0") return Option.some(0n)
  if (!whole.test(digits)) return Option.none()
  let nanos = 0n
  for (const [, integer = "", fraction = "", unit = ""] of digits.matchAll(each)) {
    if (integer === "" && fraction === "") return Option.none()
    const nanosPerUnit = units.get(unit) ?? 0n
    // Fractions of a nanosecond are cut off.
    const decimals = fraction.slice(0, 18)
    nanos += BigInt(integer) * nanosPerUnit + BigInt(decimals) * nanosPerUnit / 10n ** BigInt(decimals.length)
    if (nanos > maxNanos) return Option.none()
  }
  return Option.some(sign === "-" ? -nanos : nanos)
}

const schema = (expected: string, fits: (nanos: bigint) => boolean) =>
  textSchema<Duration.Duration>({
    expected,
    parse: (text) =>
      nanosOf(text).pipe(
        Option.filter(fits),
        Option.map((nanos) => Duration.min(Duration.nanos(nanos), Duration.millis(maxMillis)))
      ),
    print: (duration) => `${Duration.toMillis(duration)}ms`
  })

/** Zero or longer. */
export const GoDuration = schema("a duration such as 20ms or 1m30s", (nanos) => nanos >= 0n)

/** Longer than zero: for pauses between two tries, and for waiting for an answer. */
export const PositiveGoDuration = schema("a duration longer than 0, such as 20ms or 1m30s", (nanos) => nanos > 0n)
