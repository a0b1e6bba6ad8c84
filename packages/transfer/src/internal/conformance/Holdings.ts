/** Counts descriptors and threads of this process, to see that none is left. Only Linux lists them. */
import { Effect, Schedule } from "effect"
import { readdir, readFile, readlink } from "node:fs/promises"

export interface Holdings {
  /** Descriptors by what they are: `socket`, `pipe`, `anon_inode`, or the path of a file. */
  readonly descriptors: ReadonlyMap<string, number>
  /** Threads, without those of Node's own pool, which start when they are first needed. */
  readonly threads: number
}

const kindOf = (target: string): string => /^(socket|pipe):/.exec(target)?.[1] ?? target

export const look: Effect.Effect<Holdings> = Effect.promise(async () => {
  const descriptors = new Map<string, number>()
  for (const fd of await readdir("/proc/self/fd").catch(() => [])) {
    const target = await readlink(`/proc/self/fd/${fd}`).catch(() => undefined)
    // The folder that is being listed is open meanwhile.
    if (target === undefined || target.endsWith("/fd")) continue
    descriptors.set(kindOf(target), (descriptors.get(kindOf(target)) ?? 0) + 1)
  }
  let threads = 0
  for (const task of await readdir("/proc/self/task").catch(() => [])) {
    const name = await readFile(`/proc/self/task/${task}/comm`, "utf8").catch(() => "")
    if (!name.startsWith("libuv")) threads++
  }
  return { descriptors, threads }
})

/** Describes everything that was not held before. */
const beyond = (before: Holdings, now: Holdings): ReadonlyArray<string> => [
  ...[...now.descriptors].flatMap(([kind, count]) => {
    const more = count - (before.descriptors.get(kind) ?? 0)
    return more > 0 ? [`${more} more ${kind}`] : []
  }),
  ...(now.threads > before.threads ? [`${now.threads - before.threads} more threads`] : [])
]

/** Waits until nothing is held beyond `before`; returns what is left after 10 seconds. */
export const leftOver = (before: Holdings): Effect.Effect<ReadonlyArray<string>> =>
  Effect.map(look, (now) => beyond(before, now)).pipe(
    Effect.repeat({ schedule: Schedule.spaced("50 millis"), until: ({ length }) => length === 0, times: 200 })
  )
