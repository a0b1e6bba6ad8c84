/** A figure, and what it must not exceed. */
export interface Bar {
  readonly name: string
  readonly value: number
  readonly bound: number
  readonly unit: string
}

/** One line that says whether the bar is met. */
export const print = ({ bound, name, unit, value }: Bar): string =>
  `${value <= bound ? "met   " : "MISSED"}  ${name.padEnd(60)}  ${
    value.toFixed(value < 100 && unit !== "" ? 1 : 0).padStart(8)
  } ${unit} (at most ${bound})`
