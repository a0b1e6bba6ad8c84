import { assert, describe, it } from "@effect/vitest"
import * as Elector from "@spegel-ts/leader-election/internal/elector/Elector"
import * as Pace from "@spegel-ts/leader-election/internal/elector/Pace"
import * as Lease from "@spegel-ts/leader-election/internal/lease/Lease"
import { type LeaseApi, LeaseConflict, WatchExpired } from "@spegel-ts/leader-election/internal/lease/LeaseApi"
import {
  defaultTimes,
  Identity,
  type LeaderElection,
  LeaseUnavailable
} from "@spegel-ts/leader-election/LeaderElection"
import * as MemoryLease from "@spegel-ts/leader-election/MemoryLease"
import * as JumpingClock from "@spegel-ts/testing/kubernetes/JumpingClock"
import { Clock, Duration, Effect, Exit, Option, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"

const id = (text: string) => Identity.make(text)
const [a, b, c] = [id("a"), id("b"), id("c")]

/** A server whose answers for one candidate can be spoilt. */
const faulty = (api: LeaseApi) => {
  const faults = {
    /** Requests fail without reaching the server. */
    down: false,
    /** So many requests meet a bug of ours. */
    bugs: 0,
    /** Writes reach the server, their answers do not come back. */
    deaf: false,
    retryAfter: undefined as Duration.Duration | undefined,
    writes: 0,
    lists: 0
  }
  const unavailable = () => new LeaseUnavailable({ lease: api.label, hint: "down", retryAfter: faults.retryAfter })
  const reach = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E | LeaseUnavailable> =>
    Effect.suspend((): Effect.Effect<A, E | LeaseUnavailable> => {
      if (faults.bugs-- > 0) throw new TypeError("a bug")
      return faults.down ? Effect.fail(unavailable()) : effect
    })
  const written = <A, E>(effect: Effect.Effect<A, E>) =>
    Effect.suspend(() => {
      faults.writes++
      return Effect.tap(reach(effect), () => faults.deaf ? Effect.fail(unavailable()) : Effect.void)
    })
  const spoilt: LeaseApi = {
    ...api,
    list: Effect.suspend(() => {
      faults.lists++
      return reach(api.list)
    }),
    create: (json) => written(api.create(json)),
    update: (json) => written(api.update(json)),
    watch: (version) =>
      Effect.map(
        Effect.suspend(() => faults.down ? Effect.fail(unavailable()) : api.watch(version)),
        // A broken connection is noticed within a second.
        Stream.interruptWhen(Effect.gen(function*() {
          while (!faults.down) yield* Effect.sleep("1 seconds")
          return yield* unavailable()
        }))
      )
  }
  return { api: spoilt, faults }
}

const start = Effect.fnUntraced(function*(api: LeaseApi, identity: Identity) {
  const scope = yield* Scope.make()
  const election = yield* Scope.provide(Elector.make({ api, identity, times: defaultTimes }), scope)
  yield* Effect.addFinalizer((exit) => Scope.close(scope, exit))
  return { ...election, identity, stop: Scope.close(scope, Exit.void) }
})
type Election = typeof LeaderElection.Service

const leaders = (...elections: ReadonlyArray<Election>) => Effect.forEach(elections, ({ isLeader }) => isLeader)

/** Passes time in small steps, and sees that there is never more than one leader. */
const pass = (duration: Duration.Input, ...elections: ReadonlyArray<Election>) =>
  Effect.gen(function*() {
    const steps = Duration.toMillis(duration) / 100
    for (let step = 0; step < steps; step++) {
      yield* TestClock.adjust("100 millis")
      assert.isAtMost((yield* leaders(...elections)).filter(Boolean).length, 1)
    }
  })

const named = ({ leader }: Election) => Effect.map(Stream.runHead(leader), Option.flatten)

describe("Elector", () => {
  it.effect("one of several takes a new lease, and the others name it", () =>
    Effect.gen(function*() {
      const { api } = yield* MemoryLease.make()
      const elections = yield* Effect.forEach([a, b, c], (identity) => start(api, identity))
      yield* pass("3 seconds", ...elections)
      const is = yield* leaders(...elections)
      assert.strictEqual(is.filter(Boolean).length, 1)
      const leader = elections[is.indexOf(true)]?.identity
      for (const election of elections) assert.deepStrictEqual(yield* named(election), Option.some(leader))
    }))

  it.effect("goes on after a bug while it leads and while it follows: one leads again, and all name it", () =>
    Effect.gen(function*() {
      const { api } = yield* MemoryLease.make()
      const spoilt = [faulty(api), faulty(api)]
      const elections = yield* Effect.forEach(spoilt, ({ api }, index) => start(api, index === 0 ? a : b))
      yield* pass("5 seconds", ...elections)
      const first = (yield* leaders(...elections)).indexOf(true)
      assert.isAtLeast(first, 0)
      for (const { faults } of spoilt) {
        faults.bugs = 3
        faults.down = true
      }
      yield* pass("20 seconds", ...elections)
      for (const { faults } of spoilt) {
        assert.isBelow(faults.bugs, 0)
        faults.down = false
      }
      yield* pass("40 seconds", ...elections)
      const now = (yield* leaders(...elections)).indexOf(true)
      assert.isAtLeast(now, 0)
      for (const election of elections) {
        assert.deepStrictEqual(yield* named(election), Option.some(elections[now]?.identity))
      }
    }))

  it.effect("renews every retry period, keeps what it does not know, and says since when it leads", () =>
    Effect.gen(function*() {
      const { api, lease } = yield* MemoryLease.make()
      yield* api.create({
        apiVersion: "coordination.k8s.io/v1",
        kind: "Lease",
        metadata: { name: "memory", labels: { kept: "yes" } },
        spec: { holderIdentity: "", leaseTransitions: 3, strategy: "kept" }
      })
      const { api: counted, faults } = faulty(api)
      const election = yield* start(counted, a)
      yield* pass("22 seconds", election)
      assert.isTrue(yield* election.isLeader)
      // Acquired within the first two seconds, then once every two.
      assert.strictEqual(faults.writes, 11)
      const { json } = Option.getOrThrow(yield* lease)
      assert.deepInclude(json, { kind: "Lease" })
      assert.deepInclude(json["metadata"] as Lease.Json, { labels: { kept: "yes" } })
      const spec = json["spec"] as Record<string, unknown>
      assert.deepInclude(spec, { strategy: "kept", leaseTransitions: 4, leaseDurationSeconds: 10, holderIdentity: "a" })
      assert.match(String(spec["renewTime"]), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/)
      assert.isBelow(Date.parse(String(spec["acquireTime"])), Date.parse(String(spec["renewTime"])) - 15_000)
    }))

  it.effect("a leader that stops gives the lease back, and another leads within two retry periods", () =>
    Effect.gen(function*() {
      const { api, lease } = yield* MemoryLease.make()
      const first = yield* start(api, a)
      yield* pass("2 seconds", first)
      const second = yield* start(api, b)
      yield* pass("5 seconds", first, second)
      assert.deepStrictEqual(yield* leaders(first, second), [true, false])
      yield* first.stop
      assert.deepInclude(Option.getOrThrow(yield* lease).json["spec"] as Lease.Json, {
        holderIdentity: "",
        leaseDurationSeconds: 1
      })
      yield* pass("4 seconds", first, second)
      assert.deepStrictEqual(yield* leaders(first, second), [false, true])
      assert.strictEqual(Option.getOrThrow(yield* lease).transitions, 1)
    }))

  it.effect("a leader that is cut off leads no more before another may, and takes part again", () =>
    Effect.gen(function*() {
      const { api } = yield* MemoryLease.make()
      const { api: spoilt, faults } = faulty(api)
      const first = yield* start(spoilt, a)
      yield* pass("3 seconds", first)
      const second = yield* start(api, b)
      yield* pass("3 seconds", first, second)
      faults.down = true
      yield* pass("4800 millis", first, second)
      assert.isTrue(yield* first.isLeader, "deposed early")
      yield* pass("2300 millis", first, second)
      assert.deepStrictEqual(yield* leaders(first, second), [false, false])
      yield* pass("7 seconds", first, second)
      assert.deepStrictEqual(yield* leaders(first, second), [false, true])
      faults.down = false
      yield* pass("10 seconds", first, second)
      assert.deepStrictEqual(yield* named(first), Option.some(b))
      yield* second.stop
      yield* pass("4 seconds", first, second)
      assert.deepStrictEqual(yield* leaders(first, second), [true, false])
    }))

  it.effect("after an outage for all, the leader of before leads again and nothing changed hands", () =>
    Effect.gen(function*() {
      const { api, lease } = yield* MemoryLease.make()
      const servers = [faulty(api), faulty(api), faulty(api)]
      const elections = []
      for (const [index, server] of servers.entries()) {
        elections.push(yield* start(server.api, id(String(index))))
        yield* pass("3 seconds", ...elections)
      }
      assert.deepStrictEqual(yield* leaders(...elections), [true, false, false])
      for (const { faults } of servers) faults.down = true
      yield* pass("30 seconds", ...elections)
      assert.deepStrictEqual(yield* leaders(...elections), [false, false, false])
      // A request that a silent server handles later would depose its leader.
      assert.deepStrictEqual(servers.slice(1).map(({ faults }) => faults.writes), [0, 0])
      // The others are back first, and leave the lease to the candidate that it names.
      const [own, ...others] = servers
      for (const { faults } of others) {
        faults.down = false
        faults.lists = 0
      }
      while (others.every(({ faults }) => faults.lists === 0)) yield* pass("100 millis", ...elections)
      // They leave it alone for two periods, in the second of which its holder tries at the latest.
      yield* pass("1500 millis", ...elections)
      if (own !== undefined) own.faults.down = false
      yield* pass("14 seconds", ...elections)
      assert.deepStrictEqual(yield* leaders(...elections), [true, false, false])
      assert.strictEqual(Option.getOrThrow(yield* lease).transitions, 0)
    }))

  it.effect("goes on leading when its writes arrive and their answers do not", () =>
    Effect.gen(function*() {
      const { api, lease } = yield* MemoryLease.make()
      const { api: spoilt, faults } = faulty(api)
      const election = yield* start(spoilt, a)
      yield* pass("3 seconds", election)
      faults.deaf = true
      yield* pass("3 seconds", election)
      faults.deaf = false
      yield* pass("6 seconds", election)
      assert.isTrue(yield* election.isLeader)
      assert.strictEqual(Option.getOrThrow(yield* lease).transitions, 0)
    }))

  it.effect("a clock that jumps by a year neither deposes the leader nor frees the lease", () =>
    Effect.gen(function*() {
      const { api } = yield* MemoryLease.make()
      const { clock, jump } = JumpingClock.make(yield* Clock.Clock)
      const first = yield* start(api, a).pipe(Effect.provideService(Clock.Clock, clock))
      yield* pass("3 seconds", first)
      const second = yield* start(api, b).pipe(Effect.provideService(Clock.Clock, clock))
      for (const year of [1, -1]) {
        jump(year * 365 * 24 * 3_600_000)
        yield* pass("15 seconds", first, second)
        assert.deepStrictEqual(yield* leaders(first, second), [true, false])
      }
    }))

  it.effect("a lease that is deleted is not free before its term ends", () =>
    Effect.gen(function*() {
      const { api, lease, remove } = yield* MemoryLease.make()
      const { api: spoilt, faults } = faulty(api)
      const first = yield* start(spoilt, a)
      yield* pass("3 seconds", first)
      const second = yield* start(api, b)
      yield* pass("3 seconds", first, second)
      faults.down = true
      yield* remove
      yield* pass("14 seconds", first, second)
      assert.deepStrictEqual(yield* leaders(first, second), [false, true])
      faults.down = false
      yield* pass("5 seconds", first, second)
      yield* remove
      yield* pass("5 seconds", first, second)
      assert.deepStrictEqual(yield* leaders(first, second), [false, true])
      assert.isTrue(Option.isSome(yield* lease))
    }))

  it.effect("is left alone for as long as the server asks", () =>
    Effect.gen(function*() {
      const { api } = yield* MemoryLease.make()
      const { api: spoilt, faults } = faulty(api)
      faults.down = true
      faults.retryAfter = Duration.seconds(20)
      const election = yield* start(spoilt, a)
      yield* pass("19 seconds", election)
      assert.strictEqual(faults.lists, 1)
      const error = yield* Effect.flip(named(election))
      assert.strictEqual(error._tag, "LeaseUnavailable")
      faults.down = false
      yield* pass("4 seconds", election)
      assert.isTrue(yield* election.isLeader)
    }))

  it.effect("waits for a lease that it may not create, and takes it when it is there", () =>
    Effect.gen(function*() {
      const { api } = yield* MemoryLease.make()
      const { api: denied, faults } = faulty({
        ...api,
        create: () =>
          Effect.fail(new LeaseUnavailable({ lease: "memory", hint: "denied", retryAfter: Duration.minutes(1) }))
      })
      const election = yield* start(denied, a)
      yield* pass("10 seconds", election)
      assert.strictEqual(faults.writes, 1)
      yield* api.create({ apiVersion: "coordination.k8s.io/v1", kind: "Lease", metadata: { name: "memory" } })
      yield* pass("3 seconds", election)
      assert.isTrue(yield* election.isLeader)
    }))

  it.effect("lists again when the server no longer knows what it was asked for", () =>
    Effect.gen(function*() {
      const { api } = yield* MemoryLease.make()
      let expired = 0
      const forgetful: LeaseApi = {
        ...api,
        watch: (version) => expired++ < 2 ? Effect.fail(new WatchExpired()) : api.watch(version)
      }
      const leader = yield* start(api, a)
      yield* pass("3 seconds", leader)
      const follower = yield* start(forgetful, b)
      yield* pass("5 seconds", leader, follower)
      assert.strictEqual(expired, 3)
      yield* leader.stop
      yield* pass("4 seconds", leader, follower)
      assert.isTrue(yield* follower.isLeader)
    }))

  it.effect("does not fight for a lease that changes each time it is written", () =>
    Effect.gen(function*() {
      const { api } = yield* MemoryLease.make()
      const election = yield* start(
        { ...api, update: () => Effect.fail(new LeaseConflict()), create: () => Effect.fail(new LeaseConflict()) },
        a
      )
      yield* pass("10 seconds", election)
      assert.isFalse(yield* election.isLeader)
    }))

  it.effect("refuses times that leave room for two leaders", () =>
    Effect.gen(function*() {
      const { api } = yield* MemoryLease.make()
      const error = yield* Effect.flip(Elector.make({
        api,
        identity: a,
        times: { ...defaultTimes, renewDeadline: Duration.seconds(8) }
      }))
      assert.strictEqual(error._tag, "ElectionTimesInvalid")
    }))
})

describe("Pace", () => {
  /** Candidates that draw a delay within a round trip of the shortest one, on average. */
  const writers = (candidates: number) => {
    const rounds = 200
    let total = 0
    for (let round = 0; round < rounds; round++) {
      const delays = Array.from({ length: candidates }, () => Pace.standBack(2000, Math.random()))
      const shortest = Math.min(...delays)
      total += delays.filter((delay) => delay < shortest + 50).length
    }
    return total / rounds
  }

  it("lets a few candidates write, however many there are", () => {
    for (const candidates of [1, 3, 50, 1000]) assert.isBelow(writers(candidates), 3, `${candidates} candidates`)
  })

  it("stays within its bounds", () => {
    for (const random of [0, 0.5, 0.999_999]) {
      assert.isAtLeast(Pace.standBack(2000, random), 0)
      assert.isAtMost(Pace.standBack(2000, random), 2000)
      assert.isAtMost(Pace.jittered(2000, random), 4400)
      assert.isAtMost(Pace.backoff(2000, 30, random), 8000)
    }
  })
})

describe("Lease", () => {
  it("writes times as Kubernetes does", () => {
    assert.strictEqual(Lease.microTime(1_764_032_533_123_456_789n), "2025-11-25T01:02:13.123456Z")
    assert.strictEqual(Lease.microTime(1_764_032_533_000_001_000n), "2025-11-25T01:02:13.000001Z")
  })
})
