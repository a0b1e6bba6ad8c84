/** The version of spegel-ts, the same in every package.json and in the chart. */
export const version = "0.1.0"
