/**
 * Background tasks: watching, refreshing, exporting. A task that fails, by an error or by a bug, starts again after growing
 * pauses. One WARN says that it fails, one INFO that it works again, and metrics show its state in between.
 *
 * Not for work that a request waits for: that fails with its request.
 */
import { Cause, Duration, Effect, type Exit, type Fiber, Metric, Option, Random, type Scope } from "effect"
import * as MetricFamily from "./MetricFamily.ts"
import * as MonotonicTime from "./MonotonicTime.ts"

const failures = MetricFamily.make(
  Metric.counter("spegel_background_failures_total", {
    description: "Failures of background tasks, by task",
    incremental: true
  })
)
const failing = MetricFamily.make(
  Metric.gauge("spegel_background_failing", {
    description: "1 while a background task fails, 0 while it works, by task"
  })
)

/** Takes reports on a task, and publishes them as log lines and metrics. */
export interface Health {
  /** The task has failed. Counted each time; logged at WARN if its reason is new (see `health`), else at DEBUG. */
  readonly failed: (cause: Cause.Cause<unknown>) => Effect.Effect<void>
  /** The task works. Logged at INFO when it had failed before. */
  readonly works: Effect.Effect<void>
}

const firstPauseMillis = 200
const defaultMaxPause = Duration.seconds(10)
/** A task that has run for this long works. */
const settleTime = Duration.seconds(30)

const messageOf = (cause: Cause.Cause<unknown>): string => {
  const error = Cause.squash(cause)
  return error instanceof Error ? error.message : String(error)
}

/** A bug is logged with its stack, an expected error with its message alone. */
const describe = (cause: Cause.Cause<unknown>): ReadonlyArray<unknown> =>
  Option.isSome(Cause.findErrorOption(cause)) ? [] : [cause]

/**
 * The health of a task that retries by itself. `distinctReasons` is how many different messages are logged at WARN until the
 * task works again; by default only the first.
 *
 * Metrics, with the label `task`: `spegel_background_failures_total`, and `spegel_background_failing`, which is 1 while the
 * task fails.
 */
export const health = Effect.fnUntraced(function*(
  task: string,
  options?: { readonly distinctReasons?: number }
): Effect.fn.Return<Health> {
  const maxSaid = options?.distinctReasons ?? 1
  const said = new Set<string>()
  yield* MetricFamily.exist([failures.of({ task })])
  // Set and not only read: an earlier run of the task may have stopped while it failed.
  yield* Metric.update(failing.of({ task }), 0)
  return {
    failed: (cause) =>
      Effect.gen(function*() {
        yield* Metric.update(failures.of({ task }), 1)
        yield* Metric.update(failing.of({ task }), 1)
        const message = messageOf(cause)
        const isNews = said.size < maxSaid && !said.has(message)
        if (isNews) said.add(message)
        const log = isNews ? Effect.logWarning : Effect.logDebug
        yield* log(`${task} failed: ${message}`, ...describe(cause))
      }),
    works: Effect.gen(function*() {
      if (said.size === 0) return
      said.clear()
      yield* Metric.update(failing.of({ task }), 0)
      yield* Effect.logInfo(`${task} works again`)
    })
  }
})

/** How a failed task is started again. */
export interface RunOptions {
  /** The longest pause before the task starts again. Default 10 seconds; pauses begin with 0.2 seconds. */
  readonly maxPause?: Duration.Duration
}

const hasEnded = Cause.fail(new Error("it has ended"))

/** Runs `work` again and again until its end is one that `isDone` accepts. */
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
      const begun = yield* MonotonicTime.millis
      const exit = yield* failures === 0 ? attempt : Effect.raceFirst(attempt, settle)
      if (isDone(exit)) return yield* works
      if ((yield* MonotonicTime.millis) - begun >= Duration.toMillis(settleTime)) failures = 0
      yield* failed(exit._tag === "Failure" ? exit.cause : hasEnded)
      const pause = Math.min(firstPauseMillis * 2 ** failures, Duration.toMillis(maxPause))
      yield* Effect.sleep(pause * (yield* Random.nextBetween(0.8, 1.2)))
    }
  })
  yield* Effect.forkScoped(run, { startImmediately: true })
})

/** Runs `work` in the background until the scope closes: it starts again when it fails, and when it ends. */
export const keepRunning = <E, R>(
  task: string,
  work: Effect.Effect<unknown, E, R>,
  options?: RunOptions
): Effect.Effect<void, never, R | Scope.Scope> => supervise(task, work, () => false, options)

/** Runs `work` in the background until it succeeds or the scope closes: it starts again when it fails. */
export const untilDone = <E, R>(
  task: string,
  work: Effect.Effect<unknown, E, R>,
  options?: RunOptions
): Effect.Effect<void, never, R | Scope.Scope> => supervise(task, work, ({ _tag }) => _tag === "Success", options)

/**
 * Makes a function that takes the failures of a task that a library reports by events, outside any fiber. The task counts as
 * working again after 30 seconds without a failure.
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

/**
 * Makes a function that runs a callback of a library or a timer. An exception of the callback would end the process; it is
 * reported as a failure of `task` instead.
 */
export const guard = (task: string): Effect.Effect<(run: () => void) => void> =>
  Effect.map(reporter(task), (report) => (run) => {
    try {
      run()
    } catch (error) {
      report(error)
    }
  })
