/**
 * Circuit breakers (closed, open, half open), one for each registry. If peers keep a registry's requests waiting in vain, its
 * circuit opens: requests still ask peers, and give them little time. After each pause one request probes with all of its time,
 * beside the others. Any request that a peer serves closes the circuit at once, even while it is open: a peer that works again is
 * used again.
 *
 * Nobody can shut a registry off alone. Only peers count that have served this node before, by the addresses from which they did,
 * and several of them have to fail for several repositories. A peer that never served anything costs time once, and is then asked
 * after others (`PeerMemory`).
 */
import { BoundedMap } from "@spegel-ts/background/BoundedMap"
import { maxListed, type OpenCircuit } from "../../Activity.ts"

export interface CircuitBreakerOptions {
  /** Failures in a row that open it, at least two; 0 keeps it closed. */
  readonly failures: number
  /** How long it is open at first, in milliseconds; twice as long after each probe that fails. */
  readonly pauseMillis: number
}

/** How much time a request gives peers. `probe`: the usual time, though the circuit is open. */
export type PeerTime = "usual" | "little" | "probe"

/** A request that no peer served. */
export interface FailedRequest {
  readonly peerTime: PeerTime
  readonly repository: string
  /** Whether any peer without an objection kept it waiting in vain. */
  readonly lostTime: boolean
  /** Those among them that had served before: the addresses from which they did. */
  readonly addresses: ReadonlySet<string>
}

/** A node mirrors fewer registries than that. */
const maxCircuits = 1000
const maxPauseMillis = 5 * 60_000
/** One request has one repository only. */
const minFailures = 2
/** Of the failures that open a circuit, the share that a single address may be the only reason for. */
const shareOfAddress = 0.5

export class CircuitBreaker {
  readonly #options: CircuitBreakerOptions
  /** How many failures in a row are looked at. */
  readonly #window: number
  /** The last failures in a row. */
  #failures: ReadonlyArray<FailedRequest> = []
  #pauseMillis: number
  #openUntil: number | undefined

  constructor(options: CircuitBreakerOptions) {
    this.#options = options
    this.#window = Math.max(minFailures, options.failures)
    this.#pauseMillis = options.pauseMillis
  }

  /** How much time a request gives peers that begins now. A probe that never ends is followed by another after a pause. */
  admit(now: number): PeerTime {
    if (this.#openUntil === undefined) return "usual"
    if (now < this.#openUntil) return "little"
    this.#openUntil = now + this.#pauseMillis
    return "probe"
  }

  /** A peer served a request: closes the circuit. */
  succeeded(): void {
    this.#failures = []
    this.#openUntil = undefined
    this.#pauseMillis = this.#options.pauseMillis
  }

  /** No peer served a request. True if this opened the circuit, or kept it open after a probe. */
  failed(request: FailedRequest, now: number): boolean {
    if (this.#openUntil !== undefined) return request.peerTime === "probe" && this.#probed(request, now)
    if (this.#options.failures === 0 || request.addresses.size === 0) return false
    this.#failures = [...this.#failures, request].slice(-this.#window)
    if (!this.#opens) return false
    this.#failures = []
    this.#openUntil = now + this.#pauseMillis
    return true
  }

  /** How long until a request probes, in milliseconds, or 0 if the next one does; undefined if the circuit is closed. */
  probesIn(now: number): number | undefined {
    return this.#openUntil === undefined ? undefined : Math.max(0, this.#openUntil - now)
  }

  #probed({ addresses, lostTime }: FailedRequest, now: number): boolean {
    // A fast failure says nothing about time: the next request is the probe.
    if (!lostTime) this.#openUntil = now
    if (addresses.size === 0) return false
    this.#pauseMillis = Math.min(maxPauseMillis, this.#pauseMillis * 2)
    this.#openUntil = now + this.#pauseMillis
    return true
  }

  /** Whether several peers failed, for several repositories. */
  get #opens(): boolean {
    if (this.#failures.length < this.#window) return false
    const repositories = new Set(this.#failures.map(({ repository }) => repository))
    const suspects = new Set(this.#failures.flatMap(({ addresses }) => [...addresses]))
    const isMostlyAlone = (address: string) =>
      this.#failures.filter(({ addresses }) => addresses.size === 1 && addresses.has(address)).length >
        shareOfAddress * this.#window
    return repositories.size > 1 && ![...suspects].some(isMostlyAlone)
  }
}

/** The circuit breakers of all registries. */
export class CircuitBreakers {
  readonly #options: CircuitBreakerOptions
  readonly #breakers = new BoundedMap<string, CircuitBreaker>(maxCircuits)

  constructor(options: CircuitBreakerOptions) {
    this.#options = options
  }

  /** The circuit breaker of a registry; a new one if there was none. */
  of(registry: string): CircuitBreaker {
    const known = this.#breakers.get(registry)
    if (known !== undefined) return known
    const breaker = new CircuitBreaker(this.#options)
    this.#breakers.set(registry, breaker)
    return breaker
  }

  /** Those that are open. */
  open(now: number): ReadonlyArray<OpenCircuit> {
    return [...this.#breakers].flatMap(([registry, breaker]) => {
      const millis = breaker.probesIn(now)
      return millis === undefined ? [] : [{ registry, millis }]
    }).slice(0, maxListed)
  }
}
