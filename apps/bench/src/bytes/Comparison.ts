/** Runs implementations beside each other, in turns, so that what else happens on the machine meets all of them. */
import { percentile } from "../Statistics.ts"
import * as Load from "./Load.ts"
import * as Requests from "./Requests.ts"

/** A line of `--json`, and of the table. */
export interface Figures {
  readonly implementation: string
  readonly clients: number
  readonly gibPerSecond: number
  readonly cpuSecondsPerGib: number | null
  /** p99 over all rounds, of a blob of 1 KiB asked for while as many clients take the large one. */
  readonly firstByteMs: number | null
}

export interface Plan {
  readonly rounds: number
  /** How many clients at once, and how often each asks, for each column of figures. */
  readonly loads: ReadonlyArray<{ readonly clients: number; readonly requests: number }>
}

export interface Comparison {
  readonly figures: ReadonlyArray<Figures>
  /** How many times the yardstick's figure an implementation's is: the median of the rounds' ratios. */
  readonly ratio: (
    of: (round: Load.Round) => number | undefined,
    implementation: string,
    yardstick: string,
    clients: number
  ) => number | undefined
  /** CPUs that others used, the median of all rounds. */
  readonly otherCpus: number
}

const median = (values: ReadonlyArray<number>) => percentile(values, 0.5)

/** Rounds in which others take more of the machine than this are run again, once. */
const maxOtherCpus = 0.3

export const run = async (
  targets: ReadonlyArray<Load.Target>,
  plan: Plan,
  servers: ReadonlyArray<number>
): Promise<Comparison> => {
  const rounds = new Map<string, Array<Load.Round>>()
  const firstBytes = new Map<string, Array<number>>()
  const key = (implementation: string, clients: number) => `${implementation} ${clients}`
  // What is compiled and cached on first use is not what is measured.
  for (const target of targets) {
    await Load.run(target, 2, 8, servers)
    if (target.smallPath !== undefined) await Requests.perSecond({ ...target, path: target.smallPath })
  }
  for (let round = 0; round < plan.rounds; round++) {
    for (const { clients, requests } of plan.loads) {
      for (const target of targets) {
        const own = key(target.name, clients)
        const first = await Load.run(target, clients, requests, servers)
        const again = first.otherCpus > maxOtherCpus ? await Load.run(target, clients, requests, servers) : first
        rounds.set(own, [...rounds.get(own) ?? [], again.otherCpus < first.otherCpus ? again : first])
        const { smallPath } = target
        if (smallPath === undefined) continue
        const millis = await Load.firstBytes(target, smallPath, clients, requests)
        firstBytes.set(own, [...firstBytes.get(own) ?? [], ...millis])
      }
    }
  }
  const roundsOf = (implementation: string, clients: number) => rounds.get(key(implementation, clients)) ?? []
  const figures = plan.loads.flatMap(({ clients }) =>
    targets.map(({ name }): Figures => {
      const own = roundsOf(name, clients)
      const cpu = own.flatMap(({ cpuSecondsPerGib }) => cpuSecondsPerGib ?? [])
      const millis = firstBytes.get(key(name, clients)) ?? []
      const rounded = (value: number) => Number(value.toFixed(3))
      return {
        implementation: name,
        clients,
        gibPerSecond: rounded(median(own.map(({ gibPerSecond }) => gibPerSecond))),
        cpuSecondsPerGib: cpu.length === 0 ? null : rounded(median(cpu)),
        firstByteMs: millis.length === 0 ? null : rounded(percentile(millis, 0.99))
      }
    })
  )
  return {
    figures,
    ratio: (of, implementation, yardstick, clients) => {
      const theirs = roundsOf(yardstick, clients).map(of)
      const ratios = roundsOf(implementation, clients).flatMap((round, index) => {
        const [mine, their] = [of(round), theirs[index]]
        return mine === undefined || their === undefined ? [] : [mine / their]
      })
      return ratios.length === 0 ? undefined : median(ratios)
    },
    otherCpus: median([...rounds.values()].flat().map(({ otherCpus }) => otherCpus))
  }
}
