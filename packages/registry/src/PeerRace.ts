/**
 * Finds who serves one request: peers are asked as the lookup names them, the next beside the first where its first
 * byte is late, the next instead of it where it fails. Losers are interrupted, and leave no connection.
 */
import type { Peer } from "@spegel-ts/router/Peer"
import { Clock, Duration, Effect, Exit, Option, Queue, Random, Result, Scope, Stream } from "effect"
import { type PeerError, PeerNotFound, ResolveTimeout } from "./MirrorError.ts"
import type { PeerMemory } from "./PeerMemory.ts"

export const nameOf = (peer: Peer): string => `peer ${peer.addresses[0] ?? peer.id}`

/** What the first peer to answer gave; closing the scope ends what it opened. */
export interface Won<A> {
  readonly value: A
  readonly scope: Scope.Closeable
}

export interface PeerRace {
  readonly race: <A>(
    use: (peer: Peer) => Effect.Effect<A, PeerError, Scope.Scope>
  ) => Effect.Effect<Won<A>, PeerNotFound | ResolveTimeout>
  /** Peers tried in vain and why. */
  readonly tried: Array<string>
}

interface Running {
  readonly peer: Peer
  readonly scope: Scope.Closeable
}

type Event =
  | { readonly _tag: "Found"; readonly peer: Peer }
  | { readonly _tag: "LookupEnded" }
  | { readonly _tag: "Outcome"; readonly attempt: Running; readonly result: Result.Result<unknown, PeerError> }

export const make = Effect.fnUntraced(function*(options: {
  readonly content: string
  readonly peers: Stream.Stream<Peer>
  readonly memory: PeerMemory
  /** How many may be asked. */
  readonly attempts: number
  /** How long to wait for a peer while none is being asked. */
  readonly resolveTimeout: Duration.Duration
}) {
  const { content, memory, resolveTimeout } = options
  const whole = yield* Effect.scope
  const random = yield* Random.Random
  const events = yield* Queue.unbounded<Event>()
  yield* options.peers.pipe(
    Stream.runForEach((peer) => Queue.offer(events, { _tag: "Found", peer })),
    Effect.ensuring(Queue.offer(events, { _tag: "LookupEnded" })),
    Effect.forkScoped
  )
  const tried: Array<string> = []
  const known: Array<Peer> = []
  let lookupEnded = false
  let left = options.attempts

  const start = Effect.fnUntraced(function*<A>(
    peer: Peer,
    use: (peer: Peer) => Effect.Effect<A, PeerError, Scope.Scope>
  ) {
    const scope = yield* Scope.fork(whole)
    const attempt: Running = { peer, scope }
    memory.busy(peer, 1)
    yield* Scope.addFinalizer(scope, Effect.sync(() => memory.busy(peer, -1)))
    const begun = yield* Clock.currentTimeMillis
    yield* use(peer).pipe(
      Scope.provide(scope),
      Effect.tap(() => Effect.map(Clock.currentTimeMillis, (now) => memory.answered(peer, now - begun))),
      Effect.result,
      Effect.flatMap((result) => Queue.offer(events, { _tag: "Outcome", attempt, result })),
      Effect.forkIn(scope)
    )
    return attempt
  })

  const race = Effect.fnUntraced(function*<A>(use: (peer: Peer) => Effect.Effect<A, PeerError, Scope.Scope>) {
    const running = new Set<Running>()
    let hedge = false
    while (true) {
      // Whatever is known by now is chosen from.
      let event = yield* Queue.poll(events)
      if (Option.isNone(event)) {
        while (left > 0 && known.length > 0 && (running.size === 0 || hedge)) {
          const [peer] = known.splice(memory.choose(known, () => random.nextDoubleUnsafe()), 1)
          if (peer === undefined) break
          const objection = memory.objection(peer, content, yield* Clock.currentTimeMillis)
          if (objection !== undefined) {
            tried.push(`${nameOf(peer)}: ${objection}`)
            continue
          }
          left--
          hedge = false
          running.add(yield* start(peer, use))
        }
        if (running.size === 0 && (left <= 0 || (lookupEnded && known.length === 0))) {
          return yield* new PeerNotFound({ content, tried })
        }
        event = yield* Queue.take(events).pipe(
          Effect.timeoutOption(
            running.size === 0 ? resolveTimeout : hedge ? Duration.infinity : Duration.millis(memory.hedgeMillis)
          )
        )
        if (Option.isNone(event)) {
          if (running.size === 0) {
            const waitedMillis = Duration.toMillis(resolveTimeout)
            return yield* new ResolveTimeout({ content, waitedMillis, tried })
          }
          hedge = true
          continue
        }
      }
      const happened = event.value
      if (happened._tag === "Found") known.push(happened.peer)
      else if (happened._tag === "LookupEnded") lookupEnded = true
      // An attempt of a race that is over may tell of itself late.
      else if (running.delete(happened.attempt)) {
        const { attempt, result } = happened
        if (Result.isSuccess(result)) {
          for (const loser of running) {
            tried.push(`${nameOf(loser.peer)}: later than another`)
            yield* Scope.close(loser.scope, Exit.void)
          }
          return { value: result.success as A, scope: attempt.scope } satisfies Won<A>
        }
        yield* Scope.close(attempt.scope, Exit.void)
        tried.push(result.failure.message)
        memory.failed(attempt.peer, content, result.failure, yield* Clock.currentTimeMillis)
        yield* Effect.logDebug(result.failure.message)
      }
    }
  })

  return { race, tried } satisfies PeerRace
})
