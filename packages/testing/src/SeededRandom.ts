/** Random numbers with a seed, so that a failure can be reproduced. `next` returns numbers from 0 to 1. */
export const random = (seed: number) => {
  let state = seed
  const next = () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return state / 2 ** 32
  }
  const below = (limit: number) => Math.floor(next() * limit)
  const pick = <A>(values: ReadonlyArray<A>): A => values[below(values.length)] as A
  return { next, below, pick, chance: (share: number) => next() < share }
}
