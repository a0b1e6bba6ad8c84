/** Many candidates for one lease, several in each process. Each reaches the API server by its own port of a `FaultProxy`. */
import { defaultTimes, type ElectionTimes } from "@spegel-ts/leader-election/LeaderElection"
import { Data, Duration, Effect, Schedule, type Scope } from "effect"
import { spawn } from "node:child_process"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import * as Subprocess from "../process/Subprocess.ts"
import type { ApiServer } from "./ApiServer.ts"
import * as FaultProxy from "./FaultProxy.ts"

/** The settings of a process of candidates, passed as JSON. */
export interface CandidateSettings {
  readonly namespace: string
  readonly name: string
  readonly leaseMillis: number
  readonly renewMillis: number
  readonly retryMillis: number
  readonly candidates: ReadonlyArray<{ readonly id: string; readonly kubeconfig: string }>
}

/** A time in which a candidate said that it led, in milliseconds of the machine's monotonic clock. */
export interface Reign {
  readonly id: string
  readonly from: number
  /** Undefined while it lasts. */
  until: number | undefined
}

/** A minute passed without a leader. */
export class NoLeader extends Data.TaggedError("NoLeader")<{ readonly log: string }> {
  override get message() {
    return `nobody leads; the candidates said:\n${this.log}`
  }
}

/** A process of candidates. */
interface Member {
  readonly candidates: ReadonlyArray<{ readonly id: string; readonly faults: FaultProxy.Faults }>
  readonly kill: Effect.Effect<void>
  readonly stop: Effect.Effect<void>
  readonly pause: Effect.Effect<void>
  readonly resume: Effect.Effect<void>
  /** Sets its wall clock off by that many milliseconds. */
  readonly jump: (millis: number) => Effect.Effect<void>
}

/** All candidates, and what they said. */
export interface Field {
  readonly server: ApiServer
  readonly times: ElectionTimes
  readonly members: ReadonlyArray<Member>
  readonly counts: FaultProxy.Counts
  /** The last log lines of the candidates. */
  readonly log: () => string
  /** The current reign, once it is not that of `before`; waits for a minute. */
  readonly leader: (before?: string) => Effect.Effect<Reign, NoLeader>
  readonly processOf: (id: string) => ReadonlyArray<Member>
  readonly candidateOf: (id: string) => Member["candidates"]
  readonly everyFault: (set: (faults: FaultProxy.Faults) => void) => Effect.Effect<void>
  /** Pairs of reigns of which the second began before the first had ended. */
  readonly overlaps: () => ReadonlyArray<readonly [Reign, Reign]>
}

/** Milliseconds of the machine's monotonic clock, which all processes share. */
export const now = () => Number(process.hrtime.bigint()) / 1e6

const program = fileURLToPath(new URL(`candidates${import.meta.url.endsWith(".ts") ? ".ts" : ".js"}`, import.meta.url))

/** The things that all candidates of a field share. */
interface Shared {
  readonly server: ApiServer
  readonly proxy: Effect.Success<ReturnType<typeof FaultProxy.start>>
  readonly name: string
  readonly times: ElectionTimes
  readonly reigns: Array<Reign>
  readonly said: (text: string) => void
}

const startMember = Effect.fnUntraced(function*(
  { name, proxy, reigns, said, server, times }: Shared,
  ids: ReadonlyArray<string>
): Effect.fn.Return<Member, never, Scope.Scope> {
  const candidates = yield* Effect.forEach(
    ids,
    Effect.fnUntraced(function*(id) {
      const way = yield* proxy.way
      server.roles.set(id, leastRoles(name))
      return { id, faults: way.faults, kubeconfig: yield* server.kubeconfig(id, way.url) }
    })
  )
  const settings: CandidateSettings = {
    namespace: "spegel",
    name,
    leaseMillis: Duration.toMillis(times.leaseDuration),
    renewMillis: Duration.toMillis(times.renewDeadline),
    retryMillis: Duration.toMillis(times.retryPeriod),
    candidates: candidates.map(({ id, kubeconfig }) => ({ id, kubeconfig }))
  }
  const child = yield* Effect.acquireRelease(
    Effect.sync(() =>
      spawn(process.execPath, ["--conditions=@spegel-ts/source", program, JSON.stringify(settings)], { stdio: "pipe" })
    ),
    Subprocess.kill
  )
  child.stderr.on("data", (bytes: Buffer) => said(bytes.toString()))
  createInterface(child.stdout).on("line", (line) => {
    const { from, id, until } = JSON.parse(line) as {
      readonly id: string
      readonly from?: number
      readonly until?: number
    }
    if (from !== undefined) reigns.push({ id, from, until: undefined })
    const open = reigns.findLast((reign) => reign.id === id && reign.until === undefined)
    if (until !== undefined && open !== undefined) open.until = until
  })
  const end = (signal: NodeJS.Signals) =>
    Effect.sync(() => child.kill(signal)).pipe(
      Effect.andThen(Subprocess.ended(child)),
      Effect.andThen(Effect.sync(() => {
        // A dead process does not say when its reign ended.
        for (const reign of reigns) if (ids.includes(reign.id)) reign.until ??= now()
      }))
    )
  const signal = (name: NodeJS.Signals) => Effect.asVoid(Effect.sync(() => child.kill(name)))
  return {
    candidates,
    kill: end("SIGKILL"),
    stop: end("SIGTERM"),
    pause: signal("SIGSTOP"),
    resume: signal("SIGCONT"),
    jump: (millis) => Effect.asVoid(Effect.sync(() => child.stdin.write(`${millis}\n`)))
  }
})

/** Starts `processes` processes with `perProcess` candidates each. They are killed with the scope. */
export const start = Effect.fnUntraced(function*(options: {
  readonly server: ApiServer
  readonly name: string
  readonly processes: number
  readonly perProcess: number
  readonly times?: ElectionTimes
}): Effect.fn.Return<Field, never, Scope.Scope> {
  const { name, perProcess, processes, server, times = defaultTimes } = options
  const proxy = yield* FaultProxy.start(server)
  const reigns: Array<Reign> = []
  let log = ""
  const said = (text: string) => {
    log = (log + text).slice(-100_000)
  }
  const members = yield* Effect.forEach(Array.from({ length: processes }).keys(), (process) => {
    const ids = Array.from({ length: perProcess }, (_, index) => `candidate-${process}-${index}`)
    return startMember({ name, proxy, reigns, said, server, times }, ids)
  })

  const leader = (before?: string) =>
    Effect.suspend(() => {
      const found = reigns.findLast(({ id, until }) => until === undefined && id !== before)
      return found === undefined ? Effect.fail(new NoLeader({ log })) : Effect.succeed(found)
    }).pipe(Effect.retry({ schedule: Schedule.spaced("10 millis"), times: 6000 }))

  const processOf = (id: string) =>
    members.filter(({ candidates }) => candidates.some((candidate) => candidate.id === id))
  const candidateOf = (wanted: string) =>
    members.flatMap(({ candidates }) => candidates).filter(({ id }) => id === wanted)

  return {
    server,
    times,
    members,
    counts: proxy.counts,
    log: () => log,
    leader,
    processOf,
    candidateOf,
    everyFault: (set: (faults: FaultProxy.Faults) => void) =>
      Effect.sync(() => {
        for (const { candidates } of members) for (const { faults } of candidates) set(faults)
      }),
    overlaps: () => {
      const sorted = reigns.toSorted((a, b) => a.from - b.from)
      return sorted.flatMap((reign, index) => {
        const next = sorted[index + 1]
        return next !== undefined && next.id !== reign.id && (reign.until ?? now()) > next.from
          ? [[reign, next] as const]
          : []
      })
    }
  }
})

/** The permissions that docs/kubernetes-election.md grants. */
export const leastRoles = (name: string) => [
  { verbs: ["create"] },
  { verbs: ["list", "watch", "update"], resourceNames: [name] }
]
