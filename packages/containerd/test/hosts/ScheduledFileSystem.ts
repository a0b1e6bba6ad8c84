/**
 * Runs at the same time whose looks at the file system, and changes of it, are done one by one, in an order that a seed
 * decides: what a busy machine does once in a million times is had again by its seed.
 */
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

/** Does one thing when its turn has come. */
type Take = <A>(name: string, perform: () => Promise<A>) => Promise<A>

const hasCode = (cause: unknown, ...codes: ReadonlyArray<string>) =>
  cause instanceof Error && "code" in cause && codes.includes(String(cause.code))

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

/** Each call as one step, or in several where other runs can come in between. */
const inSteps = (take: Take): PatchedFileSystem.Around => (name, args, perform) => {
  const [path, options] = args
  if (typeof path === "string" && typeof options === "object" && options !== null && "recursive" in options) {
    if (name === "rm") return removeTree(take, path)
    if (name === "mkdir") return makeTree(take, path)
  }
  if (name === "handle.sync") return Promise.resolve()
  // An open file stays the same, whatever others do to its name.
  if (name.startsWith("handle.")) return perform(args)
  return take([name, ...args.filter((arg) => typeof arg === "string")].join(" "), () => perform(args))
}

/** A step that changes something: what another run does next may be the first to see it. */
const change = /^\d+ (?:link|mkdir|rename|rm|rmdir|unlink) | wx$/

/**
 * Runs all of `runs`, of which `killed` stop for ever somewhere. Fails where one of them fails. Gives the steps that were
 * taken, to explain what comes of them.
 */
export const run = async (
  seed: number,
  runs: ReadonlyArray<() => Promise<unknown>>,
  killed = 0
): Promise<ReadonlyArray<string>> => {
  const random = SeededRandom.random(seed)
  /** How often a run has its turn, compared with others. It is drawn anew now and then, as a rule after a change. */
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
