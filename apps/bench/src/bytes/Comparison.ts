/** Compares implementations in turns, so that other work on the machine affects all of them. */
import type * as Bar from "../Bar.ts"
import { times } from "../Bar.ts"
import { percentile } from "../Statistics.ts"
import * as Load from "./load/Load.ts"

/** A line of `--json`, and of the table. Without clients: an idle server's first bytes. */
export interface Figures {
  readonly implementation: string
  readonly clients: number
  readonly gibPerSecond: number | null
  readonly cpuSecondsPerGib: number | null
  readonly peerCpuSecondsPerGib: number | null
  /** Over all rounds, of a blob of 1 KiB asked for while so many clients take the large one. */
  readonly firstByteMs: { readonly p50: number; readonly p99: number } | null
}

/** Numbers of concurrent clients, and of requests of each. */
const loads = [{ clients: 0, requests: 0 }, { clients: 1, requests: 8 }, { clients: 8, requests: 2 }]

/** The result of a comparison; `otherCpus` says how busy the machine was. */
export interface Comparison {
  readonly figures: ReadonlyArray<Figures>
  /** The CPUs that other programs used, the median of all rounds. */
  readonly otherCpus: number
  /** Bars for one client and for eight: the most, or the least, that a figure may be as a multiple of the yardstick's. */
  readonly bars: (
    name: string,
    of: (round: Load.Round) => number | undefined,
    names: { readonly implementation: string; readonly yardstick: string },
    bound: number,
    atLeast?: boolean
  ) => ReadonlyArray<Bar.Bar>
}

const rounded = (value: number) => Number(value.toFixed(3))

/** The median of the known values. */
const median = (values: ReadonlyArray<number | undefined>): number | null => {
  const known = values.filter((value) => value !== undefined)
  return known.length === 0 ? null : rounded(percentile(known, 0.5))
}

/** A round during which other programs use more CPUs than this is run once more. */
const maxOtherCpus = 0.3

/** `peer` is the process that relayed bytes come from. */
export const run = async (
  targets: ReadonlyArray<Load.Target>,
  rounds: number,
  peer?: number
): Promise<Comparison> => {
  const measured = new Map<string, Array<Load.Round>>()
  const firstBytes = new Map<string, Array<number>>()
  const keyOf = (implementation: string, clients: number) => `${implementation} ${clients}`
  for (const target of targets) await Load.warmUp(target)
  for (let round = 0; round < rounds; round++) {
    for (const { clients, requests } of loads) {
      for (const target of targets) {
        const key = keyOf(target.name, clients)
        if (clients > 0) {
          const first = await Load.run(target, clients, requests, peer)
          const again = first.otherCpus > maxOtherCpus ? await Load.run(target, clients, requests, peer) : first
          measured.set(key, [...measured.get(key) ?? [], again.otherCpus < first.otherCpus ? again : first])
        }
        if (target.smallPath === undefined) continue
        const millis = await Load.firstBytes(target, target.smallPath, clients, requests)
        firstBytes.set(key, [...firstBytes.get(key) ?? [], ...millis])
      }
    }
  }
  const roundsOf = (implementation: string, clients: number) => measured.get(keyOf(implementation, clients)) ?? []
  return {
    figures: loads.flatMap(({ clients }) =>
      targets.map(({ name }): Figures => {
        const own = roundsOf(name, clients)
        const millis = firstBytes.get(keyOf(name, clients))
        return {
          implementation: name,
          clients,
          gibPerSecond: median(own.map(({ gibPerSecond }) => gibPerSecond)),
          cpuSecondsPerGib: median(own.map(({ cpuSecondsPerGib }) => cpuSecondsPerGib)),
          peerCpuSecondsPerGib: median(own.map(({ peerCpuSecondsPerGib }) => peerCpuSecondsPerGib)),
          firstByteMs: millis === undefined
            ? null
            : { p50: rounded(percentile(millis, 0.5)), p99: rounded(percentile(millis, 0.99)) }
        }
      })
    ),
    otherCpus: percentile([...measured.values()].flat().map(({ otherCpus }) => otherCpus), 0.5),
    bars: (name, of, { implementation, yardstick }, bound, atLeast = false) =>
      [1, 8].flatMap((clients) => {
        const theirs = roundsOf(yardstick, clients).map(of)
        const ratios = roundsOf(implementation, clients).flatMap((round, index) => {
          const [mine, their] = [of(round), theirs[index]]
          return mine === undefined || their === undefined ? [] : [mine / their]
        })
        const value = median(ratios)
        return value === null ? [] : [{ name: `${name}, ${clients} clients`, value, bound, unit: times, atLeast }]
      })
  }
}
