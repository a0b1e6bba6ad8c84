import { Console, Effect } from "effect"

/** A figure with its bound: the most that it may be, or the least. */
export interface Bar {
  readonly name: string
  readonly value: number
  readonly bound: number
  readonly unit: string
  /** Whether more is better. */
  readonly atLeast?: boolean
}

/** The unit of a figure that is a multiple of another. */
export const times = "x"

const digits = (value: number, unit: string) => unit === times ? 2 : value < 100 && unit !== "" ? 1 : 0

export const isMet = ({ atLeast = false, bound, value }: Bar): boolean => atLeast ? value >= bound : value <= bound

/** One line that says whether the bar is met. */
export const print = (bar: Bar): string => {
  const { atLeast = false, bound, name, unit, value } = bar
  const figure = value.toFixed(digits(value, unit)).padStart(8)
  return `${isMet(bar) ? "met   " : "MISSED"}  ${name.padEnd(60)}  ${figure} ${unit} (at ${
    atLeast ? "least" : "most"
  } ${bound})`
}

/** Prints a line for each. */
export const printAll = (bars: ReadonlyArray<Bar>) => Effect.forEach(bars, (bar) => Console.log(print(bar)))
