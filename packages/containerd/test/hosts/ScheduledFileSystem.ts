/**
 * Runs functions at the same time, and performs their file-system operations one by one, in an order that a seed
 * decides. So a race that a busy machine shows once in a million runs can be repeated.
 */
import { hasCode } from "@spegel-ts/containerd/internal/hosts/AtomicFile"
import * as SeededRandom from "@spegel-ts/testing/SeededRandom"
import { AsyncLocalStorage } from "node:async_hooks"
import { dirname, join } from "node:path"
import timers, { setImmediate } from "node:timers/promises"
import * as PatchedFileSystem from "./PatchedFileSystem.ts"

interface Step {
  readonly run: number
  readonly name: string
  readonly perform: () => Promise<void>
}

/** Performs an operation when its run has its turn. */
type Take = <A>(name: string, perform: () => Promise<A>) => Promise<A>

const { lstat, mkdir, readdir, rmdir, unlink } = PatchedFileSystem.original

/** `rm -rf` in the steps that Node takes. */
const removeTree = async (take: Take, path: string): Promise<void> => {
  try {
    const stats = await take(`lstat ${path}`, () => lstat(path))
    if (!stats.isDirectory()) return await take(`unlink ${path}`, () => unlink(path))
    for (const name of await take(`readdir ${path}`, () => readdir(path))) await removeTree(take, join(path, name))
    await take(`rmdir ${path}`, () => rmdir(path))
  } catch (cause) {
    if (!hasCode(cause, "ENOENT")) throw cause
  }
}

/** `mkdir -p` in the steps that Node takes. */
const makeTree = async (take: Take, path: string): Promise<void> => {
  try {
    await take(`mkdir ${path}`, () => mkdir(path))
  } catch (cause) {
    if (hasCode(cause, "EEXIST")) return
    if (!hasCode(cause, "ENOENT")) throw cause
    await makeTree(take, dirname(path))
    await makeTree(take, path)
  }
}

/** Takes each call as one step, or as several if other runs can come in between. */
const inSteps = (take: Take): PatchedFileSystem.Around => (name, args, perform) => {
  const [path, options] = args
  if (typeof path === "string" && typeof options === "object" && options !== null && "recursive" in options) {
    if (name === "rm") return removeTree(take, path)
    if (name === "mkdir") return makeTree(take, path)
  }
  if (name === "handle.sync") return Promise.resolve()
  // Others may rename or remove an open file: the file itself does not change.
  if (name.startsWith("handle.")) return perform(args)
  return take([name, ...args.filter((arg) => typeof arg === "string")].join(" "), () => perform(args))
}

/** Steps that change something. The next step of another run may be the first to see it. */
const change = /^\d+ (?:link|mkdir|rename|rm|rmdir|unlink) | wx$/

/**
 * Runs all of `runs` to their end, except that `killed` of them stop for ever at a random step. Fails if one of them
 * fails. Gives the steps, to explain the result.
 */
export const run = async (
  seed: number,
  runs: ReadonlyArray<() => Promise<unknown>>,
  killed = 0
): Promise<ReadonlyArray<string>> => {
  const random = SeededRandom.random(seed)
  /** How often each run has its turn, relative to the others. Drawn again now and then, mostly after a change. */
  let weights: ReadonlyArray<number> = []
  const deaths = new Set(Array.from({ length: killed }, () => random.below(60 * runs.length)))
  const current = new AsyncLocalStorage<number>()
  const steps: Array<string> = []
  const failures: Array<unknown> = []
  const alive = new Set(runs.keys())
  let waiting: Array<Step> = []

  const take: Take = (name, perform) => {
    const run = current.getStore()
    if (run === undefined) throw new Error(`${name} belongs to no run`)
    return new Promise((resolve, reject) => {
      waiting.push({ run, name, perform: () => perform().then(resolve, reject) })
    })
  }
  const isSettled = () => new Set(waiting.map(({ run }) => run)).size === alive.size
  const choose = (): Step | undefined => {
    if (weights.length === 0 || random.chance(change.test(steps.at(-1) ?? "") ? 0.3 : 0.02)) {
      weights = runs.map(() => random.pick([0.001, 0.05, 1, 20]))
    }
    const weightOf = ({ run }: Step) => weights[run] ?? 0
    let rest = random.below(2 ** 20) / 2 ** 20 * waiting.reduce((sum, step) => sum + weightOf(step), 0)
    return waiting.find((step) => (rest -= weightOf(step)) < 0)
  }
  const schedule = async () => {
    while (alive.size > 0) {
      do await setImmediate()
      while (!isSettled())
      if (deaths.has(steps.length)) {
        const dead = random.pick([...alive])
        alive.delete(dead)
        waiting = waiting.filter(({ run }) => run !== dead)
        steps.push(`${dead} is killed`)
      }
      const step = choose()
      if (step === undefined) continue
      waiting.splice(waiting.indexOf(step), 1)
      steps.push(`${step.run} ${step.name}`)
      await step.perform()
    }
  }

  const pause = timers.setTimeout
  timers.setTimeout = (<A>(_: number, value: A) => take("wait", () => Promise.resolve(value))) as typeof pause
  try {
    await PatchedFileSystem.run(inSteps(take), async () => {
      for (const [number, run] of runs.entries()) {
        void current.run(
          number,
          () => run().catch((cause: unknown) => failures.push(cause)).finally(() => alive.delete(number))
        )
      }
      await schedule()
    })
  } finally {
    timers.setTimeout = pause
  }
  if (failures.length > 0) throw new AggregateError(failures, `${failures.join("; ")}\n${steps.join("\n")}`)
  return steps
}
