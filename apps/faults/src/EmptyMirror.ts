/** The cost of a mirror that finds nothing: pulls with and without it, in turns. */
import { Console, Effect } from "effect"
import type * as Lane from "./Lane.ts"
import { median } from "./Report.ts"

/** The result: medians over pairs of pulls. */
export interface EmptyMirror {
  readonly name: string
  readonly pairs: number
  readonly plainSeconds: number
  readonly mirrorSeconds: number
  /** Median over the pairs: the duration with the mirror divided by the one without. */
  readonly ratio: number
  /** Median over the pairs of the difference, in seconds. */
  readonly addedSeconds: number
}

export const maxRatio = 1.05
export const maxAddedSeconds = 0.1

const layerSizes = Array.from({ length: 4 }, () => 64 * 1024 * 1024)

/** Whether the mirror costs little enough: less than 5 % and 100 ms. */
export const isMet = ({ addedSeconds, ratio }: EmptyMirror): boolean =>
  ratio <= maxRatio && addedSeconds <= maxAddedSeconds

/** Measures at least `minPairs` pairs, and up to three times as many while the bars are missed: the machine may be busy. */
export const measure: (
  lane: Lane.Lane,
  name: string,
  minPairs: number
) => Effect.Effect<EmptyMirror> = Effect.fnUntraced(function*(lane, name, minPairs) {
  const image = yield* lane.image(layerSizes)
  const pull = Effect.fnUntraced(function*(from: "mirror" | "upstream") {
    const { error, seconds } = yield* lane.pull(image, from)
    yield* lane.collect(image)
    if (error !== undefined) return yield* Effect.die(new Error(`a pull from ${from} failed: ${error}`))
    return seconds
  })
  const pairs: Array<{ readonly plain: number; readonly mirror: number }> = []
  const summary = (): EmptyMirror => ({
    name,
    pairs: pairs.length,
    plainSeconds: median(pairs.map(({ plain }) => plain)),
    mirrorSeconds: median(pairs.map(({ mirror }) => mirror)),
    ratio: median(pairs.map(({ mirror, plain }) => mirror / plain)),
    addedSeconds: median(pairs.map(({ mirror, plain }) => mirror - plain))
  })
  // The first pull of each kind finds caches and compilers cold.
  yield* pull("upstream")
  yield* pull("mirror")
  while (pairs.length < minPairs || (!isMet(summary()) && pairs.length < 3 * minPairs)) {
    const mirrorFirst = pairs.length % 2 === 1
    const early = mirrorFirst ? yield* pull("mirror") : undefined
    const plain = yield* pull("upstream")
    const mirror = early ?? (yield* pull("mirror"))
    pairs.push({ plain, mirror })
    yield* Console.log(`${name}: plain ${plain.toFixed(3)} s, empty mirror ${mirror.toFixed(3)} s`)
  }
  return summary()
}, Effect.orDie)
