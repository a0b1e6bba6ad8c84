/**
 * The peers of one pull: those that the lookup named and that were not asked yet, those that are being asked, and how many more
 * may be asked.
 */
import type { Peer } from "@spegel-ts/router/Peer"
import type { RouterNotReady } from "@spegel-ts/router/Router"
import {
  Data,
  type Duration,
  Effect,
  type Option,
  Queue,
  Random,
  type Result,
  type Schedule,
  type Scope,
  Stream
} from "effect"
import type { ContentId } from "../../ContentId.ts"
import type { PeerError } from "../../MirrorError.ts"
import { Outcome } from "../../Outcome.ts"
import type { Situation } from "../../ResolvePolicy.ts"
import { Candidates } from "../mirror/Candidates.ts"
import * as PeerAddress from "../mirror/PeerAddress.ts"
import { nameOf } from "../mirror/PeerAnswer.ts"
import type { PeerMemory } from "../mirror/PeerMemory.ts"
import type { AttemptEntry, PullRecord } from "../observe/PullRecord.ts"
import type { Attempt } from "./Attempt.ts"

export interface PullPeersOptions {
  readonly content: ContentId
  /** Finds the peers that are said to have the content, at most `count`. */
  readonly lookup: (count: number) => Stream.Stream<Peer, RouterNotReady>
  readonly memory: PeerMemory
  /** Why peers that do not serve promptly get little time of this pull; undefined if they get the usual time. */
  readonly caution: string | undefined
  /** Whether peers that proved that they know the cluster key are asked before others, and their word counts more. */
  readonly provedFirst: boolean
  readonly record: PullRecord
  /** How many peers may be asked. */
  readonly retries: number
  /** How long to wait for a peer while none is being asked; `schedule` waits this long. */
  readonly resolveTimeout: Duration.Duration
  readonly schedule: Schedule.Schedule<number, Situation>
}

/** News for the race: a lookup or an attempt went on. */
export type PeerEvent = Data.TaggedEnum<{
  Found: { readonly peer: Peer }
  LookupEnded: {}
  AttemptEnded: { readonly attempt: Attempt; readonly result: Result.Result<unknown, PeerError> }
}>
export const PeerEvent = Data.taggedEnum<PeerEvent>()

/** How many peers one address may be, to the router: other addresses are found beside those. */
const maxPeersOfAddress = 16
/** How many peers are found where their word counts: as many as a member of the network names. */
const maxWitnesses = 64

export class PullPeers {
  readonly options: PullPeersOptions
  /** The pull's scope. */
  readonly scope: Scope.Scope
  readonly events: Queue.Queue<PeerEvent>
  readonly candidates: Candidates
  readonly running = new Set<Attempt>()
  readonly #seen = new Set<string>()
  readonly #seenAddresses = new Set<string>()
  /** A lookup is under way. */
  looking = false
  /** Peers may be looked up once more if those known are used up. */
  mayLookAgain = false
  /** How many more peers may be asked. */
  left: number
  /** Whether a peer without an objection has kept this pull waiting in vain. */
  lostTime = false
  /** Those among them that had served before: the addresses from which they did. */
  readonly keptWaitingBy = new Set<string>()

  constructor(options: PullPeersOptions, scope: Scope.Scope, events: Queue.Queue<PeerEvent>, random: () => number) {
    this.options = options
    this.scope = scope
    this.events = events
    this.left = options.retries
    const { caution, content, memory, provedFirst } = options
    this.candidates = new Candidates({
      content,
      memory,
      caution,
      provedFirst,
      random,
      onDeferred: (peer, reason) => this.entryOf(peer, 0, false, Outcome.Deferred({ reason }))
    })
  }

  /**
   * Starts a lookup beside the pull: peers are asked as it names them, not when it has ended. It asks for more peers than may be
   * asked: some may be known to fail, and of the others the less busy are chosen. It ends once peers at enough addresses were
   * found; but where their word counts, each that can be found is a candidate, for an address is only a claim before it answers.
   */
  get startLookup(): Effect.Effect<unknown> {
    return Effect.suspend(() => {
      this.looking = true
      const { lookup, provedFirst, retries } = this.options
      const found = new Set(this.#seenAddresses)
      const enough = provedFirst ? Infinity : found.size + 2 * retries
      const count = this.#seen.size + (provedFirst ? maxWitnesses : 2 * retries + maxPeersOfAddress)
      return lookup(count).pipe(
        Stream.takeUntil((peer) => found.add(PeerAddress.of(peer)).size >= enough),
        Stream.runForEach((peer) => Queue.offer(this.events, PeerEvent.Found({ peer }))),
        Effect.catch((error) => Effect.logDebug(error.message)),
        Effect.ensuring(Queue.offer(this.events, PeerEvent.LookupEnded())),
        Effect.forkIn(this.scope)
      )
    })
  }

  learn(event: PeerEvent): void {
    if (event._tag === "LookupEnded") this.looking = false
    if (event._tag !== "Found" || this.#seen.has(event.peer.id)) return
    this.#seen.add(event.peer.id)
    this.#seenAddresses.add(PeerAddress.of(event.peer))
    this.options.record.peersSeen++
    this.candidates.add(event.peer)
  }

  /** Learns what has happened by now. */
  get learnAll(): Effect.Effect<void> {
    return Effect.map(Queue.clear(this.events), (events) => {
      for (const event of events) this.learn(event)
    })
  }

  /** The next event, if it comes within this many milliseconds. */
  takeWithin(millis: number): Effect.Effect<Option.Option<PeerEvent>> {
    return Queue.take(this.events).pipe(Effect.timeoutOption(millis))
  }

  /** Whether there is a peer without an objection that was not asked yet, and that may be asked. */
  hasAnother(now: number): boolean {
    return this.left > 0 && this.candidates.hasGood(now)
  }

  /** Allows as many more peers as at first, and one more lookup. */
  renew(): void {
    this.left = this.options.retries
    this.mayLookAgain = true
  }

  /** A peer without an objection has kept this pull waiting in vain. */
  waitedInVainFor(peer: Peer): void {
    this.lostTime = true
    const address = this.options.memory.servedFrom(peer)
    if (address !== undefined) this.keptWaitingBy.add(address)
  }

  /** Begins an entry in the record of the pull. */
  entryOf(peer: Peer, start: number, hedge: boolean, outcome: Outcome): AttemptEntry {
    return this.options.record.begin({
      peer: peer.id,
      address: nameOf(peer),
      start,
      hedge,
      firstByteMillis: undefined,
      bytes: 0,
      outcome
    })
  }
}

/** The peers of a pull whose scope is the current one; none is looked up yet. */
export const make = Effect.fnUntraced(function*(options: PullPeersOptions) {
  const random = yield* Random.Random
  const events = yield* Queue.unbounded<PeerEvent>()
  return new PullPeers(options, yield* Effect.scope, events, () => random.nextDoubleUnsafe())
})
