/**
 * How a node finds its first peers, and from when on it is ready: it has met a peer, or its sources were asked and name
 * nobody else, or a grace has passed.
 */
import { type Multiaddr, multiaddr } from "@multiformats/multiaddr"
import * as Background from "@spegel-ts/background/Background"
import {
  Cause,
  Data,
  Duration,
  Effect,
  FiberSet,
  Option,
  Queue,
  Random,
  Result,
  Schedule,
  type Scope,
  Semaphore,
  Stream
} from "effect"
import type { Bootstrap } from "../../Bootstrap.ts"
import { Standing } from "../../Router.ts"

/** A bootstrap address did not lead to a peer. */
export class DialFailed extends Data.TaggedError("DialFailed")<{ readonly reason: string }> {
  override get message() {
    return this.reason
  }
}

/** The network as it is seen from here. */
export interface Surroundings {
  /** How many members have been heard. */
  readonly peers: () => number
  readonly isMember: (id: string) => boolean
  readonly isSelf: (address: Multiaddr) => boolean
  /** Connects; interrupted where it takes too long. */
  readonly dial: (address: Multiaddr) => Effect.Effect<void, DialFailed>
}

export interface Joining {
  readonly ready: () => boolean
  readonly standing: () => Standing
}

/** How long to look for a peer before a node is ready without one. Longer than a sweep over a thousand dead addresses. */
const defaultGrace = Duration.seconds(15)
/** The first peer tells of the others: a lookup before that would ask the wrong ones. */
const introduction = Duration.millis(500)
/** So many peers are enough to begin with: they tell of the others. */
const enough = 3
/** Addresses that are dialled at first: more would let each new node of a large cluster dial it whole. */
const firstWave = 8
/** Addresses that are dialled next, while too few have answered: a list may be mostly dead. */
const laterWave = 32
const waveMillis = 150
const dialsAtOnce = 256
/** A dead address may swallow the dial: the first time this must not hold up those behind it. */
const firstDialTimeout = Duration.millis(1500)
const dialTimeout = Duration.seconds(5)
/** Addresses that are dialled where there are peers, to find a part of the network that is apart. */
const roundSize = 16
const rebootstrapInterval = Duration.minutes(30)
const changeSpread = Duration.seconds(10)

const parse = Option.liftThrowable(multiaddr)

/** Puts addresses in random order, those first that were dialled least lately. */
class Turns {
  #round = 0
  #dialled = new Map<string, number>()

  order(addresses: ReadonlyArray<string>) {
    this.#round++
    // Only what is still there is remembered, so that it does not grow as addresses come and go.
    this.#dialled = new Map(addresses.map((address) => [address, this.#dialled.get(address) ?? 0]))
    return Effect.map(
      Random.shuffle(addresses),
      (shuffled) => shuffled.toSorted((a, b) => (this.#dialled.get(a) ?? 0) - (this.#dialled.get(b) ?? 0))
    )
  }

  dialled(address: string): void {
    this.#dialled.set(address, this.#round)
  }
}

const tellWhatToDo = "check that they run, and that the port of --router-addr is open between the nodes"

/** Looks for peers while the scope is open. */
export const make = Effect.fnUntraced(function*(
  { bootstrap, grace = defaultGrace, surroundings }: {
    readonly bootstrap: typeof Bootstrap.Service
    readonly surroundings: Surroundings
    readonly grace?: Duration.Duration | undefined
  }
): Effect.fn.Return<Joining, never, Scope.Scope> {
  const { dial, isMember, isSelf, peers } = surroundings
  const changed = yield* Queue.sliding<void>(1)
  const dials = yield* FiberSet.make<void>()
  const permits = yield* Semaphore.make(dialsAtOnce)
  const turns = new Turns()
  const sources = yield* Background.health("bootstrap sources", { distinctReasons: 16 })
  const state = { ready: false, reason: "no bootstrap peer was asked yet", saidAlone: false, sourceFailure: "" }
  const alone = () => peers() === 0

  /** Says once that a node which should have peers has none, until it has had some. */
  const sayAlone = Effect.suspend(() => {
    if (state.saidAlone) return Effect.void
    state.saidAlone = true
    return Effect.logWarning(`ready, alone: ${state.reason}`)
  })

  /** Calls `reached` if the address leads to somebody. */
  const attempt = (address: string, timeout: Duration.Duration, reached: () => void) => {
    turns.dialled(address)
    return permits.withPermits(1)(
      dial(multiaddr(address)).pipe(
        Effect.timeout(timeout),
        Effect.andThen(Effect.sync(reached)),
        Effect.catch((error) => Effect.logDebug(`bootstrap: ${address} did not answer: ${error.message}`))
      )
    )
  }

  /** Dials in waves until enough have answered; a wave waits for the one before it for a moment only. */
  const sweep = Effect.fnUntraced(function*(addresses: ReadonlyArray<string>, timeout: Duration.Duration) {
    const ended = yield* Queue.unbounded<void>()
    let reached = 0
    let running = 0
    const isDone = () => reached >= enough
    for (let from = 0; from < addresses.length && !isDone();) {
      const wave = addresses.slice(from, from + (from === 0 ? firstWave : laterWave))
      from += wave.length
      for (const address of wave) {
        running++
        yield* FiberSet.run(
          dials,
          Effect.ensuring(
            attempt(address, timeout, () => reached++),
            Effect.andThen(Effect.sync(() => running--), Queue.offer(ended, undefined))
          )
        )
      }
      const settled = Effect.repeat(Queue.take(ended), { until: () => running === 0 || isDone() })
      yield* from < addresses.length ? Effect.timeoutOption(settled, waveMillis) : settled
    }
    return reached
  })

  const askSources = Effect.gen(function*() {
    const result = yield* Effect.result(bootstrap.addresses)
    yield* Result.isFailure(result) ? sources.failed(Cause.fail(result.failure)) : sources.works
    state.sourceFailure = Result.isFailure(result) ? result.failure.message : ""
    const found = Result.isFailure(result) ? result.failure.found ?? [] : result.success
    return [...new Set(found)].filter((text) => Option.exists(parse(text), (address) => !isSelf(address)))
  })

  /** Dials as many as it takes to have a first peer. */
  const search = Effect.fnUntraced(function*(timeout: Duration.Duration) {
    const addresses = yield* askSources
    if (addresses.length === 0 && state.sourceFailure !== "") {
      state.reason = state.sourceFailure
    } else if (addresses.length === 0) {
      state.reason = "the bootstrap sources name nobody else"
      if (!state.ready) yield* Effect.logInfo(`ready, alone: ${state.reason}`)
      state.ready = true
      return
    } else {
      state.reason = `none of ${addresses.length} bootstrap peers has answered; ${tellWhatToDo}`
      // Who has answered is a member when it has said who it is.
      if ((yield* sweep(yield* turns.order(addresses), timeout)) > 0) yield* Effect.sleep(introduction)
    }
    if (state.ready && alone()) yield* sayAlone
  })

  /** Dials a few that are strangers: whoever is known is reached when it is needed. */
  const lookAround = Effect.gen(function*() {
    const addresses = (yield* turns.order(yield* askSources)).slice(0, roundSize)
    const isKnown = (address: string) => {
      const id = multiaddr(address).getComponents().findLast(({ name }) => name === "p2p")?.value
      return id !== undefined && isMember(id)
    }
    const strangers = addresses.filter((address) => !isKnown(address))
    yield* Effect.forEach(strangers, (address) => attempt(address, dialTimeout, () => undefined), {
      concurrency: 8,
      discard: true
    })
  })

  const untilAlone = Effect.sync(alone).pipe(
    Effect.repeat({ schedule: Schedule.spaced("5 seconds"), until: (alone) => alone }),
    Effect.asVoid
  )

  /** Until there is a peer with growing pauses; then when nobody is left, every half hour, and when sources have changed. */
  const lookForever = Effect.gen(function*() {
    yield* search(firstDialTimeout)
    for (let failures = 0;;) {
      if (alone()) {
        const pause = Math.min(500 * 2 ** failures++, 30_000) * (yield* Random.nextBetween(0.8, 1.2))
        yield* Effect.timeoutOption(Queue.take(changed), pause)
      } else {
        failures = 0
        const period = Duration.toMillis(rebootstrapInterval) * (yield* Random.nextBetween(0.8, 1.2))
        yield* Effect.timeoutOption(Effect.raceFirst(untilAlone, Queue.take(changed)), period)
        // A change is news to all nodes at the same moment.
        const spread = Duration.toMillis(changeSpread) * (yield* Random.next)
        yield* Effect.timeoutOption(untilAlone, spread)
      }
      yield* alone() ? search(dialTimeout) : lookAround
    }
  })

  const followPeers = Effect.gen(function*() {
    while (alone()) yield* Effect.sleep(state.ready ? "1 second" : "50 millis")
    yield* Effect.sleep(introduction)
    state.ready = true
    state.saidAlone = false
    state.reason = "all peers have gone"
    while (!alone()) yield* Effect.sleep("1 second")
  })

  const endGrace = Effect.suspend(() => {
    if (state.ready) return Effect.void
    state.ready = true
    return sayAlone
  })

  const followChanges = Stream.runForEach(bootstrap.changes, () => Queue.offer(changed, undefined))
  // Sources that never change have no news: that is an end, and no failure.
  yield* Background.untilDone("bootstrap changes", followChanges)
  yield* Background.keepRunning("bootstrap", lookForever)
  yield* Background.keepRunning("readiness", Effect.forever(followPeers))
  yield* Effect.forkScoped(Effect.delay(endGrace, grace))
  return {
    ready: () => state.ready,
    standing: () => {
      if (!state.ready) return Standing.Joining({ reason: state.reason })
      return alone() ? Standing.Alone({ reason: state.reason }) : Standing.Joined({ peers: peers() })
    }
  }
})
