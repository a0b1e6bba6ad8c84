/** Faults of a cluster, caused to a `Field` of candidates, with bounds for their effects. */
import { Duration, Effect } from "effect"
import type { Field } from "./Field.ts"
import { now } from "./Field.ts"

/** A measured figure, and what it must not exceed. */
export interface Figure {
  readonly name: string
  readonly value: number
  readonly bound: number
  readonly unit: string
}

/** Causes one fault, undoes it, and measures. */
export interface Scenario {
  readonly title: string
  readonly run: (field: Field) => Effect.Effect<ReadonlyArray<Figure>, { readonly message: string }>
}

/** A new leader is due within the lease duration and two retry periods. */
const boundOf = ({ times }: Field) => Duration.toMillis(times.leaseDuration) + 2 * Duration.toMillis(times.retryPeriod)

const takeover = (field: Field, name: string, since: number, from: number): Figure => ({
  name: `${name}, until there is a leader`,
  value: (from - since) / 1000,
  bound: boundOf(field) / 1000,
  unit: "s"
})

/** Does something to the leader, sees another lead, and undoes it. */
const toLeader = (
  title: string,
  harm: (field: Field, id: string) => Effect.Effect<Effect.Effect<unknown>>
): Scenario => ({
  title,
  run: (field) =>
    Effect.gen(function*() {
      const { id } = yield* field.leader()
      // Not right after a renewal: faults come at any time of a term.
      yield* Effect.sleep("1500 millis")
      const since = now()
      const undo = yield* harm(field, id)
      const next = yield* field.leader(id)
      yield* undo
      yield* Effect.sleep("1 seconds")
      return [takeover(field, title, since, next.from)]
    })
})

const idle: Scenario = {
  title: "idle, while clocks jump by a year",
  run: (field) =>
    Effect.gen(function*() {
      const seconds = 30
      const leader = yield* field.leader()
      yield* Effect.sleep("3 seconds")
      const before = { ...field.counts }
      const halves = field.members.map((_, index) => index % 2 === 0 ? 1 : -1)
      yield* Effect.forEach(field.members, ({ jump }, index) => jump((halves[index] ?? 0) * 365 * 24 * 3_600_000))
      yield* Effect.sleep(Duration.seconds(seconds))
      const perMinute = (kind: "reads" | "watches" | "writes") => (field.counts[kind] - before[kind]) * 60 / seconds
      const candidates = field.members.flatMap(({ candidates }) => candidates).length
      // Servers end each watch after 5 to 10 minutes, which a short run does not see.
      const reopened = candidates * 60 / 450
      return [
        { name: "writes a minute", value: perMinute("writes"), bound: 60, unit: "" },
        { name: "reads a minute", value: perMinute("reads"), bound: 60, unit: "" },
        {
          name: "requests a second, all, with watches opened again",
          value: (perMinute("writes") + perMinute("reads") + perMinute("watches") + reopened) / 60,
          bound: 1,
          unit: "/s"
        },
        { name: "leaders deposed", value: leader.until === undefined ? 0 : 1, bound: 0, unit: "" }
      ]
    })
}

const killed = toLeader(
  "leader killed",
  (field, id) => Effect.as(Effect.forEach(field.processOf(id), ({ kill }) => kill), Effect.void)
)

const partitioned = toLeader("leader partitioned", (field, id) =>
  Effect.sync(() => {
    for (const { faults } of field.candidateOf(id)) faults.cut = "silent"
    return Effect.sync(() => {
      for (const { faults } of field.candidateOf(id)) faults.cut = "no"
    })
  }))

const paused = toLeader("leader paused", (field, id) =>
  Effect.as(
    Effect.forEach(field.processOf(id), ({ pause }) => pause),
    Effect.forEach(field.processOf(id), ({ resume }) => resume)
  ))

const denied = toLeader("leader's permission withdrawn", (field, id) =>
  Effect.sync(() => {
    const roles = field.server.roles.get(id) ?? []
    field.server.roles.set(id, [])
    return Effect.sync(() => field.server.roles.set(id, roles))
  }))

const released: Scenario = {
  title: "leader stopped",
  run: (field) =>
    Effect.gen(function*() {
      const { id } = yield* field.leader()
      const since = now()
      yield* Effect.forEach(field.processOf(id), ({ stop }) => stop)
      const next = yield* field.leader(id)
      const figure = takeover(field, "leader stopped", since, next.from)
      // It gives the lease back: no term has to end.
      return [{ ...figure, bound: figure.bound - Duration.toSeconds(field.times.leaseDuration) }]
    })
}

const outage: Scenario = {
  title: "API server silent for 30 s",
  run: (field) =>
    Effect.gen(function*() {
      const before = yield* field.leader()
      yield* field.server.freeze
      yield* Effect.sleep("30 seconds").pipe(Effect.ensuring(field.server.thaw))
      const since = now()
      const next = yield* field.leader()
      return [
        takeover(field, "API server silent for 30 s", since, next.from),
        { name: "leases that changed hands in that outage", value: next.id === before.id ? 0 : 1, bound: 0, unit: "" }
      ]
    })
}

const noisy: Scenario = {
  title: "answers that are slow, lost, 500, 429 or 410",
  run: (field) =>
    Effect.gen(function*() {
      yield* field.leader()
      const writes = field.counts.writes
      yield* field.everyFault((faults) => {
        Object.assign(faults, { errors: 0.1, throttled: 0.1, dropped: 0.1, delay: 1500, watchFrom: "1" })
      })
      const seconds = 20
      yield* Effect.sleep(Duration.seconds(seconds))
      const perMinute = (field.counts.writes - writes) * 60 / seconds
      yield* field.everyFault((faults) => {
        Object.assign(faults, { errors: 0, throttled: 0, dropped: 0, delay: 0, watchFrom: undefined })
      })
      const since = now()
      const leader = yield* field.leader()
      return [
        {
          name: "after noise, until there is a leader",
          value: Math.max(0, leader.from - since) / 1000,
          bound: boundOf(field) / 1000,
          unit: "s"
        },
        // The bound is twice what a leader alone writes.
        { name: "writes a minute under noise", value: perMinute, bound: 60, unit: "" }
      ]
    })
}

/** To be run in this order, since some end processes for good. Five processes are enough. */
export const scenarios: ReadonlyArray<Scenario> = [
  idle,
  partitioned,
  paused,
  denied,
  outage,
  noisy,
  killed,
  released
]
