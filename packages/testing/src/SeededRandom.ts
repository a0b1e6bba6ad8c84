/** A generator of its own, so that a failure can be had again by its seed. */
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
