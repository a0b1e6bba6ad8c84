/** A random schedule: which image nodes pull, when each begins, and what happens to them meanwhile. All of it follows from a seed. */
import * as SeededRandom from "@spegel-ts/testing/SeededRandom"

export const kinds = [
  "mirror killed",
  "mirror stopped",
  "pull interrupted",
  "containerd restarted",
  "mirror frozen"
] as const

export type Kind = typeof kinds[number]

/** The program that asks a node's containerd to pull. `ctr` downloads itself, and CRI has containerd download. */
export type Client = "ctr" | "CRI"

export interface Event {
  readonly kind: Kind
  /** The index of the node. */
  readonly node: number
  /** In milliseconds after the beginning of the schedule. */
  readonly at: number
  /** Until what was stopped goes on, in milliseconds. */
  readonly pause: number
}

export interface Start {
  /** In milliseconds after the beginning of the schedule. */
  readonly at: number
  readonly client: Client
}

export interface Schedule {
  readonly seed: number
  /** In bytes. */
  readonly layerSizes: ReadonlyArray<number>
  /** For each node. */
  readonly starts: ReadonlyArray<Start>
  /** In the order of their times. */
  readonly events: ReadonlyArray<Event>
}

const mebibyte = 1024 ** 2
const maxSpread = 2000
const maxEvents = 3

/** The shortest pause and the longest, in milliseconds. A containerd daemon is started again at once. */
const pauses: Readonly<Record<Kind, readonly [number, number]>> = {
  "mirror killed": [0, 2000],
  "mirror stopped": [0, 2000],
  "pull interrupted": [0, 1000],
  "containerd restarted": [0, 0],
  "mirror frozen": [1000, 5000]
}

export interface ScheduleOptions {
  readonly seed: number
  readonly nodes: number
  /** In bytes per second. The events take place in the time that a lone pull needs, and that of the starts. */
  readonly upstreamSpeed: number
}

export const make = ({ nodes, seed, upstreamSpeed }: ScheduleOptions): Schedule => {
  // The first numbers of neighbouring seeds are alike: the factor, of the golden ratio, spreads the seeds.
  const random = SeededRandom.random(Math.imul(seed, 0x9e3779b1))
  const layerSizes = [mebibyte, (8 + random.below(17)) * mebibyte]
  const alone = (1000 * layerSizes.reduce((sum, size) => sum + size, 0)) / upstreamSpeed
  const spread = maxSpread * random.next()
  const starts = Array.from(
    { length: nodes },
    (): Start => ({ at: spread * random.next(), client: random.pick(["ctr", "CRI"]) })
  )
  const events = Array.from({ length: 1 + random.below(maxEvents) }, (): Event => {
    const kind = random.pick(kinds)
    const node = random.below(nodes)
    const [least, most] = pauses[kind]
    const share = random.next()
    return {
      kind,
      node,
      // Only a pull that has begun can be interrupted.
      at: kind === "pull interrupted" ? (starts[node]?.at ?? 0) + alone * share : (spread + alone) * share,
      pause: least + (most - least) * random.next()
    }
  })
  return { seed, layerSizes, starts, events: events.toSorted((one, other) => one.at - other.at) }
}
