/**
 * A process with some candidates, for `Field`. It prints a JSON line when a candidate begins and ceases to say that it leads, with
 * the time on the machine's monotonic clock, which all processes share. A number on stdin sets the wall clock wrong by so many
 * milliseconds.
 */
import * as KubernetesLease from "@spegel-ts/leader-election/KubernetesLease"
import { Identity, LeaderElection } from "@spegel-ts/leader-election/LeaderElection"
import { Clock, Context, Duration, Effect, Layer, Logger, Option } from "effect"
import { createInterface } from "node:readline"
import type { CandidateSettings } from "./Field.ts"
import * as JumpingClock from "./JumpingClock.ts"

const settings = JSON.parse(process.argv[2] ?? "") as CandidateSettings
const now = () => Number(process.hrtime.bigint()) / 1e6
const say = (value: unknown) => process.stdout.write(`${JSON.stringify(value)}\n`)

const candidate = Effect.fnUntraced(function*(id: string, kubeconfig: string) {
  const context = yield* Layer.build(KubernetesLease.layer({
    namespace: settings.namespace,
    name: settings.name,
    kubeconfig: Option.some(kubeconfig),
    environment: {},
    identity: Identity.make(id),
    times: {
      leaseDuration: Duration.millis(settings.leaseMillis),
      renewDeadline: Duration.millis(settings.renewMillis),
      retryPeriod: Duration.millis(settings.retryMillis)
    }
  }))
  const { isLeader } = Context.get(context, LeaderElection)
  let leads = false
  let last = 0
  const sample = Effect.sync(now).pipe(
    Effect.flatMap((before) =>
      Effect.map(isLeader, (is) => {
        // The process was paused in between: the time does not belong to what was seen.
        if (now() - before > 2) return
        if (is !== leads) say(is ? { id, from: before } : { id, until: last })
        leads = is
        if (is) last = before
      })
    )
  )
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(sample, Effect.sleep("10 millis"))))
  return () => {
    if (leads) say({ id, until: now() })
  }
})

const program = Effect.gen(function*() {
  const { clock, jump } = JumpingClock.make(yield* Clock.Clock)
  const stop = new Promise<void>((resolve) => {
    process.once("SIGTERM", () => resolve())
    createInterface(process.stdin).on("line", (line) => jump(Number(line))).on("close", () => resolve())
  })
  yield* Effect.gen(function*() {
    const ends = yield* Effect.forEach(
      settings.candidates,
      ({ id, kubeconfig }) => candidate(id, kubeconfig)
    )
    yield* Effect.promise(() => stop)
    for (const end of ends) end()
  }).pipe(Effect.scoped, Effect.provideService(Clock.Clock, clock))
  process.exitCode = 0
  process.stdin.destroy()
})

await Effect.runPromise(Effect.provideService(program, Logger.LogToStderr, true))
