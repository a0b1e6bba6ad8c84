/** The contract of `LeaderElection`, as tests over candidates for one lease. Needs `@effect/vitest`. */
import { assert, describe, it } from "@effect/vitest"
import { Context, Duration, Effect, Exit, Layer, Option, Schedule, Scope, Stream } from "effect"
import { type ElectionTimes, Identity, LeaderElection } from "./LeaderElection.ts"

/** Times for the suite, which waits for terms to end: 5, 3 and 1 seconds. */
export const conformanceTimes: ElectionTimes = {
  leaseDuration: Duration.seconds(5),
  renewDeadline: Duration.seconds(3),
  retryPeriod: Duration.seconds(1)
}

type Candidates = (identity: Identity) => Layer.Layer<LeaderElection, unknown>

/**
 * Defines the suite. Each test runs `make` once: it makes a new lease, and gives the layer of a candidate for it by the
 * candidate's identity, with `conformanceTimes`.
 */
export const leaderElectionConformance = (name: string, make: Effect.Effect<Candidates, unknown, Scope.Scope>) => {
  const start = Effect.fnUntraced(function*(candidates: Candidates, name: string) {
    const identity = Identity.make(name)
    const scope = yield* Scope.make()
    yield* Effect.addFinalizer((exit) => Scope.close(scope, exit))
    const context = yield* Layer.buildWithScope(Layer.fresh(candidates(identity)), scope)
    return { ...Context.get(context, LeaderElection), identity, stop: Scope.close(scope, Exit.void) }
  })
  type Candidate = Effect.Success<ReturnType<typeof start>>

  const leaders = (candidates: ReadonlyArray<Candidate>) => Effect.filter(candidates, ({ isLeader }) => isLeader)
  /** Waits until just one of them leads. */
  const elected = (...candidates: ReadonlyArray<Candidate>) =>
    leaders(candidates).pipe(
      Effect.flatMap(([leader, second]) => {
        assert.isUndefined(second, "two leaders")
        return leader === undefined ? Effect.fail("nobody leads" as const) : Effect.succeed(leader)
      }),
      Effect.retry({ schedule: Schedule.spaced("20 millis"), times: 1000 })
    )
  const names = ({ leader }: Candidate, identity: Identity) =>
    leader.pipe(Stream.filter(Option.contains(identity)), Stream.runHead, Effect.timeout("5 seconds"))

  describe(`LeaderElection ${name}`, { timeout: 60_000 }, () => {
    it.live("one candidate leads, all know which, and it stays", () =>
      Effect.gen(function*() {
        const candidatesOf = yield* make
        const candidates = yield* Effect.forEach(["a", "b", "c"], (name) => start(candidatesOf, name))
        const leader = yield* elected(...candidates)
        yield* Effect.forEach(candidates, (candidate) => names(candidate, leader.identity))
        yield* Effect.sleep("5 seconds")
        assert.deepStrictEqual((yield* leaders(candidates)).map(({ identity }) => identity), [leader.identity])
      }))

    it.live("a leader that stops is followed by another, and leads again when it has come back and is the only one", () =>
      Effect.gen(function*() {
        const candidatesOf = yield* make
        const first = yield* start(candidatesOf, "a")
        yield* elected(first)
        const second = yield* start(candidatesOf, "b")
        yield* first.stop
        assert.isFalse(yield* first.isLeader)
        yield* elected(second)
        const again = yield* start(candidatesOf, "a")
        yield* names(again, second.identity)
        yield* second.stop
        yield* elected(again)
      }))

    it.live("whoever asks late is told at once", () =>
      Effect.gen(function*() {
        const candidatesOf = yield* make
        const leader = yield* start(candidatesOf, "a")
        yield* elected(leader)
        const head = yield* Stream.runHead(leader.leader).pipe(Effect.timeout("1 second"))
        assert.deepStrictEqual(head, Option.some(Option.some(leader.identity)))
      }))
  })
}
