/**
 * Circuit breakers (closed, open, half open), one for each registry. If peers keep a registry's requests waiting in vain, its
 * circuit opens: requests still ask peers, and give them little time. After a pause one request probes with all of its time.
 * Any request that a peer serves closes the circuit at once, even while it is open: a peer that works again is used again.
 */
import { BoundedMap } from "@spegel-ts/background/BoundedMap"

export interface CircuitBreakerOptions {
  /** Failures in a row that open it; 0 keeps it closed. */
  readonly failures: number
  /** How long it is open at first, in milliseconds; twice as long after each probe that fails. */
  readonly pauseMillis: number
}

/** A node mirrors fewer registries than that. */
const maxCircuits = 1000
const maxPauseMillis = 5 * 60_000

export class CircuitBreaker {
  readonly #options: CircuitBreakerOptions
  #failures = 0
  #pauseMillis: number
  #openUntil: number | undefined
  #probing = false

  constructor(options: CircuitBreakerOptions) {
    this.#options = options
    this.#pauseMillis = options.pauseMillis
  }

  /** Whether this request gives peers little time. After the pause it is false once: that request is the probe. */
  isOpen(now: number): boolean {
    if (this.#openUntil === undefined) return false
    if (now < this.#openUntil) return true
    // One probe at a time. A probe that never reports is followed by another.
    this.#probing = true
    this.#openUntil = now + this.#pauseMillis
    return false
  }

  /** A peer served a request: closes the circuit. */
  succeeded(): void {
    this.#failures = 0
    this.#openUntil = undefined
    this.#probing = false
    this.#pauseMillis = this.#options.pauseMillis
  }

  /** A request waited in vain. True if this opened the circuit, or kept it open after a probe. */
  failed(now: number): boolean {
    // Requests that began before it opened prove nothing new.
    if (this.#openUntil !== undefined && !this.#probing) return false
    if (this.#probing) this.#pauseMillis = Math.min(maxPauseMillis, this.#pauseMillis * 2)
    else if (this.#options.failures === 0 || ++this.#failures < this.#options.failures) return false
    this.#probing = false
    this.#openUntil = now + this.#pauseMillis
    return true
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
}
