/** The descriptors that a mirror has open at rest. */
import { Effect } from "effect"
import type { ChildProcess } from "node:child_process"
import { readdir, readlink } from "node:fs/promises"
import type { Mirrors } from "../soak/Mirrors.ts"

export interface Descriptors {
  readonly all: number
  /** Those of blobs and of downloads. */
  readonly content: number
}

/** A mirror closes connections to peers that nobody has used for 30 s. */
const restTime = "32 seconds"
/** Connections come and go even then: the least of so many readings, a second apart, counts. */
const readings = 5

const read = ({ pid = 0 }: ChildProcess) =>
  Effect.promise(async (): Promise<Descriptors> => {
    const directory = `/proc/${pid}/fd`
    const targets = await Promise.all(
      (await readdir(directory)).map((name) => readlink(`${directory}/${name}`).catch(() => undefined))
    )
    const open = targets.filter((target) => target !== undefined)
    return { all: open.length, content: open.filter((target) => /\/(?:blobs|ingest)\//.test(target)).length }
  })

const leastOf = Effect.fnUntraced(function*(child: ChildProcess) {
  const taken = yield* Effect.replicateEffect(Effect.andThen(Effect.sleep("1 second"), read(child)), readings)
  return taken.reduce((one, other) => other.all < one.all ? other : one)
})

/** Waits until the mirrors are at rest, and counts; by the names of nodes. */
export const atRest = (mirrors: Mirrors): Effect.Effect<ReadonlyMap<string, Descriptors>> =>
  Effect.sleep(restTime).pipe(
    Effect.andThen(Effect.forEach(
      mirrors.running,
      ({ child, node }) => Effect.map(leastOf(child), (descriptors) => [node.name, descriptors] as const),
      { concurrency: "unbounded" }
    )),
    Effect.map((counted) => new Map(counted))
  )
