/**
 * Work that goes on beside requests: watching, refreshing, exporting. It may fail, by an error or by a bug. It then starts
 * again with growing pauses; one WARN says that it fails, one INFO that it works again, and metrics tell meanwhile.
 *
 * Not for work that a request waits for: that fails with its request.
 */
import { Cause, Clock, Duration, Effect, type Exit, type Fiber, Metric, Option, Random, type Scope } from "effect"

const failures = (task: string) =>
  Metric.counter("spegel_background_failures_total", {
    description: "Failures of work beside requests, by task",
    incremental: true,
    attributes: { task }
  })
const failing = (task: string) =>
  Metric.gauge("spegel_background_failing", {
    description: "1 while work beside requests fails, 0 while it works, by task",
    attributes: { task }
  })

/** How a task is doing. */
export interface Health {
  /** The task has failed. Counted each time; said at WARN when it worked before, else at DEBUG. */
  readonly failed: (cause: Cause.Cause<unknown>) => Effect.Effect<void>
  /** The task works. Said at INFO when it had failed. */
  readonly works: Effect.Effect<void>
}

const firstPauseMillis = 200
const defaultMaxPause = Duration.seconds(10)
/** A task that has run for so long works. */
const settleTime = Duration.seconds(30)

const messageOf = (cause: Cause.Cause<unknown>): string => {
  const error = Cause.squash(cause)
  return error instanceof Error ? error.message : String(error)
}

/** A bug is told with its stack, an expected error with its message. */
const describe = (cause: Cause.Cause<unknown>): ReadonlyArray<unknown> =>
  Option.isSome(Cause.findErrorOption(cause)) ? [] : [cause]

/**
 * The health of a task that retries by itself. `distinctReasons` is how many different messages are said at WARN before
 * the task works again; by default only the first.
 */
export const health = Effect.fnUntraced(function*(
  task: string,
  options?: { readonly distinctReasons?: number }
): Effect.fn.Return<Health> {
  const maxSaid = options?.distinctReasons ?? 1
  const said = new Set<string>()
  yield* Metric.update(failures(task), 0)
  yield* Metric.update(failing(task), 0)
  return {
    failed: (cause) =>
      Effect.gen(function*() {
        yield* Metric.update(failures(task), 1)
        yield* Metric.update(failing(task), 1)
        const message = messageOf(cause)
        const isNews = said.size < maxSaid && !said.has(message)
        if (isNews) said.add(message)
        const log = isNews ? Effect.logWarning : Effect.logDebug
        yield* log(`${task} failed: ${message}`, ...describe(cause))
      }),
    works: Effect.gen(function*() {
      if (said.size === 0) return
      said.clear()
      yield* Metric.update(failing(task), 0)
      yield* Effect.logInfo(`${task} works again`)
    })
  }
})

export interface RunOptions {
  /** The longest pause before the task starts again. Default 10 seconds; pauses begin with 0.2 seconds. */
  readonly maxPause?: Duration.Duration
}

const hasEnded = Cause.fail(new Error("it has ended"))

const supervise = Effect.fnUntraced(function*<E, R>(
  task: string,
  work: Effect.Effect<unknown, E, R>,
  isDone: (exit: Exit.Exit<unknown, E>) => boolean,
  { maxPause = defaultMaxPause }: RunOptions = {}
): Effect.fn.Return<void, never, R | Scope.Scope> {
  const { failed, works } = yield* health(task)
  const settle = Effect.sleep(settleTime).pipe(Effect.andThen(works), Effect.andThen(Effect.never))
  const attempt = Effect.exit(work)
  const run = Effect.gen(function*() {
    for (let failures = 0;; failures++) {
      const begun = yield* Clock.monotonicTimeNanos
      const exit = yield* failures === 0 ? attempt : Effect.raceFirst(attempt, settle)
      if (isDone(exit)) return yield* works
      const ran = Duration.nanos((yield* Clock.monotonicTimeNanos) - begun)
      if (Duration.isGreaterThanOrEqualTo(ran, settleTime)) failures = 0
      yield* failed(exit._tag === "Failure" ? exit.cause : hasEnded)
      const pause = Math.min(firstPauseMillis * 2 ** failures, Duration.toMillis(maxPause))
      yield* Effect.sleep(pause * (yield* Random.nextBetween(0.8, 1.2)))
    }
  })
  yield* Effect.forkScoped(run, { startImmediately: true })
})

/** Runs `work` in the background of the scope for ever: it starts again when it fails, and when it ends. */
export const keepRunning = <E, R>(
  task: string,
  work: Effect.Effect<unknown, E, R>,
  options?: RunOptions
): Effect.Effect<void, never, R | Scope.Scope> => supervise(task, work, () => false, options)

/** Runs `work` in the background of the scope until it succeeds. */
export const untilDone = <E, R>(
  task: string,
  work: Effect.Effect<unknown, E, R>,
  options?: RunOptions
): Effect.Effect<void, never, R | Scope.Scope> => supervise(task, work, ({ _tag }) => _tag === "Success", options)

/**
 * Takes failures that a library tells by events, outside of any fiber. The task works again when there was none for 30
 * seconds.
 */
export const reporter = Effect.fnUntraced(function*(task: string): Effect.fn.Return<(error: unknown) => void> {
  const { failed, works } = yield* health(task, { distinctReasons: 16 })
  const fork = Effect.runForkWith(yield* Effect.context())
  let settling: Fiber.Fiber<void> | undefined
  return (error) => {
    fork(failed(Cause.die(error)))
    settling?.interruptUnsafe()
    settling = fork(Effect.delay(works, settleTime))
  }
})

/** Runs callbacks that a library or a timer calls: what they throw would end the process, and is reported instead. */
export const guard = (task: string): Effect.Effect<(run: () => void) => void> =>
  Effect.map(reporter(task), (report) => (run) => {
    try {
      run()
    } catch (error) {
      report(error)
    }
  })
