/**
 * The resolve policy: how long a pull waits for peers, and how many it asks, before the request falls back to upstream.
 *
 * By default it waits 20 ms for a peer to be found, tries 3 peers, and hedges to the next one if a first byte is late. That is
 * `schedule`, by which a race of peers (`PeerRace`) waits. `HedgeDelay` and `Patience` are the two durations that follow what
 * peers did before.
 */
import { Duration, Effect, Schedule } from "effect"

/** The limits on waiting for peers. Each ends with another peer, or with the fallback to upstream. */
export interface ResolveSettings {
  /** How long to wait for a peer to be found while none is being asked. Then the request falls back to upstream. */
  readonly resolveTimeout: Duration.Duration
  /** How many peers may be tried for the first byte, and again after a peer that sent `renewAfterBytes` and then failed. */
  readonly resolveRetries: number
  /** How long a peer may take to send the first byte of a body. Then the next peer is asked. */
  readonly firstByteTimeout: Duration.Duration
  /**
   * How long to wait for a first byte before also asking the next peer (later: the p80 of observed first-byte times); and how
   * long other providers of a tag are waited for.
   */
  readonly hedgeDelay: Duration.Duration
  /** How long a HEAD or a manifest may take, whatever peers do. Then the request falls back to upstream. */
  readonly answerTimeout: Duration.Duration
}

/** The first two are Spegel's; the others keep a pull from waiting longer than a user notices. */
export const defaults: ResolveSettings = {
  resolveTimeout: Duration.millis(20),
  resolveRetries: 3,
  firstByteTimeout: Duration.seconds(1),
  hedgeDelay: Duration.millis(50),
  answerTimeout: Duration.seconds(3)
}

/** A peer that sent this many bytes was worth asking: as many peers may be tried after it as at first. */
export const renewAfterBytes = 1024 * 1024

/** The facts that the time to wait depends on. */
export interface Situation {
  /** How many peers are being asked. */
  readonly inFlight: number
  /** How many more may be asked. */
  readonly left: number
}

/**
 * How long to wait before the next step of a race: while no peer is being asked, for one to be found; else for a first byte,
 * before a hedge to another peer. The schedule ends when no more peers may be asked: no further hedge is sent.
 */
export const schedule = (
  { hedgeDelay, resolveTimeout }: {
    readonly resolveTimeout: Duration.Duration
    readonly hedgeDelay: Effect.Effect<Duration.Duration>
  }
): Schedule.Schedule<number, Situation> =>
  Schedule.forever.pipe(
    Schedule.setInputType<Situation>(),
    Schedule.while(({ input }) => input.left > 0),
    Schedule.modifyDelay(({ input }) => input.inFlight === 0 ? Effect.succeed(resolveTimeout) : hedgeDelay)
  )

/** A shorter delay comes from a busy process and not from a slow peer. In milliseconds. */
const minHedgeMillis = 5
const hedgePercentile = 0.8
/** How many of the last first-byte times count. */
const firstByteSamples = 100

/** How long to wait before hedging: a fixed time until there are observations, then the p80 of first-byte times. */
export class HedgeDelay {
  readonly #firstBytes: Array<number> = []
  #millis: number

  constructor(initialMillis: number) {
    this.#millis = initialMillis
  }

  /** In milliseconds. */
  get millis(): number {
    return this.#millis
  }

  /** The first byte of an answer came after this many milliseconds. */
  observe(millis: number): void {
    this.#firstBytes.push(millis)
    if (this.#firstBytes.length > firstByteSamples) this.#firstBytes.shift()
    const sorted = this.#firstBytes.toSorted((a, b) => a - b)
    this.#millis = Math.max(minHedgeMillis, sorted[Math.floor(sorted.length * hedgePercentile)] ?? 0)
  }
}

/** The longest silence of a peer that failed before. One that works again answers sooner, even right after its start. */
export const maxPatienceMillis = 250
/** No peer can be expected to answer in less. */
const minPatienceMillis = 20
/** How much of the time may be lost. */
const patienceShare = 0.05

/**
 * How long requests wait for peers that kept others waiting before. Such a peer is asked only if no better one is left, since
 * it may work again; if it does not, each request would lose the time anew. So all requests together have one budget of
 * time to lose, which refills slowly: in the long run a pull is at most a twentieth slower than from upstream alone.
 */
export class Patience {
  #millis = maxPatienceMillis
  #at = 0

  /** Milliseconds that a request may wait now; 0 if the peer is not worth asking. */
  left(now: number): number {
    this.#refill(now)
    return this.#millis < minPatienceMillis ? 0 : Math.floor(this.#millis)
  }

  /** A request has waited in vain for this many milliseconds. */
  spend(millis: number, now: number): void {
    this.#refill(now)
    this.#millis -= millis
  }

  #refill(now: number): void {
    this.#millis = Math.min(maxPatienceMillis, this.#millis + (now - this.#at) * patienceShare)
    this.#at = now
  }
}
