/** The requests for content that are being answered. Nothing is made of them until somebody looks. */
import { Effect, Option } from "effect"
import { maxListed, type RunningRequest } from "../../Activity.ts"
import { type Caller, isOwn } from "../auth/Caller.ts"
import * as ClientAddress from "../listen/ClientAddress.ts"
import { digestOf, tagOf } from "../serve/ContentExchange.ts"
import type { ContentAsked } from "../serve/RegistryRequest.ts"
import type { Ended } from "./Accounting.ts"

interface Running {
  readonly asked: ContentAsked
  readonly own: boolean
  readonly received: Ended
}

export class RunningRequests {
  readonly #running = new Set<Running>()

  /** Lists a request while it is answered, if it is for content. */
  during<A, E, R>(received: Ended, caller: Caller, effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    const { asked } = received
    if (asked._tag !== "Content") return effect
    return Effect.suspend(() => {
      const running = { received, asked, own: isOwn(caller, asked.request) }
      this.#running.add(running)
      return Effect.ensuring(effect, Effect.sync(() => void this.#running.delete(running)))
    })
  }

  /** The oldest ones, the oldest first. `now` is as `MonotonicTime.millis` has it. */
  list(now: number): ReadonlyArray<RunningRequest> {
    return [...this.#running].slice(0, maxListed).map((running) => describe(running, now))
  }
}

const describe = (
  { asked: { inProgress, request }, own, received: { incoming, record, started } }: Running,
  now: number
): RunningRequest => ({
  method: request.method,
  mirrored: request.mirrored,
  own,
  client: ClientAddress.of(incoming.socket),
  asker: inProgress?.asker,
  image: Option.match(request.namespace, {
    onNone: () => request.repository,
    onSome: (registry) => `${registry}/${request.repository}`
  }),
  content: digestOf(request) ?? tagOf(request) ?? "",
  range: request.range,
  millis: Math.round(now - started),
  size: record.size,
  sent: record.bytesTaken,
  source: record.source,
  waitingFor: record.waiting?.source,
  attempts: record.attempts.map((attempt) => ({ ...attempt }))
})
