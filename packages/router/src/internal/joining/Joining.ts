/**
 * Looks for peers at the bootstrap addresses: until there is one, when all have gone, every half hour, and when a source has
 * changed. Decides when the node is ready: it has met a peer, or the sources name nobody else, or a grace period is over.
 */
import { type Multiaddr, multiaddr } from "@multiformats/multiaddr"
import * as Background from "@spegel-ts/background/Background"
import { Cause, Duration, Effect, Option, Queue, Random, Result, Schedule, type Scope, Stream } from "effect"
import type { Bootstrap } from "../../Bootstrap.ts"
import type { Standing } from "../../Router.ts"
import { BootstrapDialer, type Dial } from "./BootstrapDialer.ts"
import { Readiness } from "./Readiness.ts"

/** The network as this node sees it. */
export interface NetworkView {
  /** How many members were heard from. */
  readonly peers: () => number
  readonly isMember: (id: string) => boolean
  readonly isSelf: (address: Multiaddr) => boolean
  readonly dial: Dial
  /** Why the last peers that were dialled did not become members, if they prove no membership; undefined otherwise. */
  readonly refusal?: () => string | undefined
}

export interface Joining {
  /** Costs nothing: each lookup asks it. */
  readonly ready: () => boolean
  /** Why this node is not ready, if it is not. */
  readonly reason: () => string
  /** Counts the members. */
  readonly standing: () => Standing
}

/** How long to look for a peer before a node is ready without one. Longer than a sweep over a thousand dead addresses. */
const defaultGrace = Duration.seconds(15)
/** The first peer names the others within this time. An earlier lookup would ask the wrong nodes. */
const introduction = Duration.millis(500)
/** In the first round a dead address that does not refuse must not hold up those behind it. */
const firstDialTimeout = Duration.millis(1500)
const dialTimeout = Duration.seconds(5)
/** How many addresses a node with peers dials, to find a part of the network that it has lost. */
const roundSize = 16
const rebootstrapInterval = Duration.minutes(30)
/** All nodes learn of a changed source at the same moment. They react within this time. */
const changeSpread = Duration.seconds(10)
const minPauseMillis = 500
const maxPauseMillis = 30_000

const whatToDo = "check that they run, and that the router's port is open between the nodes"

const parse = Option.liftThrowable(multiaddr)
const jitter = Random.nextBetween(0.8, 1.2)

const idOf = (address: string): string | undefined =>
  multiaddr(address).getComponents().findLast(({ name }) => name === "p2p")?.value

/** Looks for peers while the scope is open. */
export const make = Effect.fnUntraced(function*(
  { bootstrap, grace = defaultGrace, network }: {
    readonly bootstrap: typeof Bootstrap.Service
    readonly network: NetworkView
    readonly grace?: Duration.Duration | undefined
  }
): Effect.fn.Return<Joining, never, Scope.Scope> {
  const readiness = new Readiness(network.peers)
  const search: Search = {
    bootstrap,
    network,
    readiness,
    dialer: yield* BootstrapDialer.make(network.dial),
    health: yield* Background.health("bootstrap sources", { distinctReasons: 16 })
  }
  const changed = yield* Queue.sliding<void>(1)
  // A source that never changes ends this stream, which is not a failure.
  yield* Background.untilDone(
    "bootstrap changes",
    Stream.runForEach(bootstrap.changes, () => Queue.offer(changed, undefined))
  )
  yield* Background.keepRunning("bootstrap", searchForever(search, Queue.take(changed)))
  yield* Background.keepRunning("readiness", Effect.forever(followPeers(readiness)))
  yield* Effect.forkScoped(Effect.delay(readiness.graceOver, grace))
  return {
    ready: () => readiness.isReady,
    reason: () => readiness.reason,
    standing: () => readiness.standing
  }
})

interface Search {
  readonly bootstrap: typeof Bootstrap.Service
  readonly network: NetworkView
  readonly readiness: Readiness
  readonly dialer: BootstrapDialer
  /** Logs when the sources begin to fail, and when they work again. */
  readonly health: Background.Health
}

/** Without peers, the pauses between searches grow. With peers, the node looks around now and then. */
const searchForever = Effect.fnUntraced(function*(search: Search, changed: Effect.Effect<void>) {
  const { readiness } = search
  yield* findFirstPeers(search, firstDialTimeout)
  for (let failures = 0;;) {
    if (readiness.isAlone) {
      const pause = Math.min(minPauseMillis * 2 ** failures++, maxPauseMillis) * (yield* jitter)
      yield* Effect.timeoutOption(changed, pause)
    } else {
      failures = 0
      const untilAlone = Effect.sync(() => readiness.isAlone).pipe(
        Effect.repeat({ schedule: Schedule.spaced("5 seconds"), until: (alone) => alone })
      )
      const period = Duration.toMillis(rebootstrapInterval) * (yield* jitter)
      yield* Effect.timeoutOption(Effect.raceFirst(untilAlone, changed), period)
      yield* Effect.timeoutOption(untilAlone, Duration.toMillis(changeSpread) * (yield* Random.next))
    }
    yield* readiness.isAlone ? findFirstPeers(search, dialTimeout) : lookAround(search)
  }
})

/** The addresses that the sources name, without this node's own. If a source failed, `failure` says why. */
const askSources = Effect.fnUntraced(function*({ bootstrap, health, network }: Search) {
  const result = yield* Effect.result(bootstrap.addresses)
  yield* Result.isFailure(result) ? health.failed(Cause.fail(result.failure)) : health.works
  const named = Result.isFailure(result) ? result.failure.found ?? [] : result.success
  return {
    addresses: [...new Set(named)].filter((text) => Option.exists(parse(text), (address) => !network.isSelf(address))),
    failure: Option.map(Result.getFailure(result), ({ message }) => message)
  }
})

/** Dials as many addresses as it takes to have the first peers. */
const findFirstPeers = Effect.fnUntraced(function*(search: Search, timeout: Duration.Duration) {
  const { dialer, network, readiness } = search
  const { addresses, failure } = yield* askSources(search)
  if (addresses.length === 0 && Option.isNone(failure)) return yield* readiness.firstOfNetwork
  if (addresses.length === 0) {
    readiness.waitsFor(Option.getOrElse(failure, () => ""))
  } else {
    const reason = () => network.refusal?.() ?? `none of ${addresses.length} bootstrap peers has answered; ${whatToDo}`
    readiness.waitsFor(reason())
    const reached = yield* dialer.sweep(yield* dialer.order(addresses), timeout)
    // A peer that answered the dial becomes a member when it has said who it is.
    if (reached > 0) yield* Effect.sleep(introduction)
    if (readiness.isAlone) readiness.waitsFor(reason())
  }
  yield* readiness.warnIfAlone
})

/** Dials a few addresses that are not known to be members'. */
const lookAround = Effect.fnUntraced(function*(search: Search) {
  const { dialer, network } = search
  const { addresses } = yield* askSources(search)
  const round = (yield* dialer.order(addresses)).slice(0, roundSize)
  const strangers = round.filter((address) => {
    const id = idOf(address)
    return id === undefined || !network.isMember(id)
  })
  yield* Effect.forEach(strangers, (address) => dialer.attempt(address, dialTimeout), { concurrency: 8, discard: true })
})

/** Waits until there are peers, then until all of them have gone. */
const followPeers = Effect.fnUntraced(function*(readiness: Readiness) {
  while (readiness.isAlone) yield* Effect.sleep(readiness.isReady ? "1 second" : "50 millis")
  yield* Effect.sleep(introduction)
  readiness.joined()
  while (!readiness.isAlone) yield* Effect.sleep("1 second")
})
