/** The version of the whole, the same in every package.json and in the chart. */
export const version = "0.1.0"
