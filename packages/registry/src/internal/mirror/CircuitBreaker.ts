/**
 * Circuit breakers (closed, open, half open): where peers keep a registry's requests waiting in vain, they get little
 * time for a while, and then one request probes with all of it. Whoever serves closes the circuit at any time: a peer that
 * is well again is not shut off.
 */
import { BoundedMap } from "@spegel-ts/background/BoundedMap"

export interface CircuitOptions {
  /** Failures in a row that open it; 0 keeps it closed. */
  readonly failures: number
  /** How long it is open at first, in milliseconds; twice as long after each probe that fails. */
  readonly pauseMillis: number
}

/** More registries than that are not told apart by a node. */
const maxCircuits = 1000
const maxPauseMillis = 5 * 60_000

export class Circuit {
  readonly #options: CircuitOptions
  #failures = 0
  #pauseMillis: number
  #openUntil: number | undefined
  #probing = false

  constructor(options: CircuitOptions) {
    this.#options = options
    this.#pauseMillis = options.pauseMillis
  }

  /** Whether peers get little time of this request. */
  isOpen(now: number): boolean {
    if (this.#openUntil === undefined) return false
    if (now < this.#openUntil) return true
    // One probe at a time; one that never tells is followed by another.
    this.#probing = true
    this.#openUntil = now + this.#pauseMillis
    return false
  }

  succeeded(): void {
    this.#failures = 0
    this.#openUntil = undefined
    this.#probing = false
    this.#pauseMillis = this.#options.pauseMillis
  }

  /** True where this failure opened the circuit, or kept it open after a probe. */
  failed(now: number): boolean {
    // Requests that began before it opened tell nothing new.
    if (this.#openUntil !== undefined && !this.#probing) return false
    if (this.#probing) this.#pauseMillis = Math.min(maxPauseMillis, this.#pauseMillis * 2)
    else if (this.#options.failures === 0 || ++this.#failures < this.#options.failures) return false
    this.#probing = false
    this.#openUntil = now + this.#pauseMillis
    return true
  }
}

/** One circuit a registry. */
export class Circuits {
  readonly #options: CircuitOptions
  readonly #circuits = new BoundedMap<string, Circuit>(maxCircuits)

  constructor(options: CircuitOptions) {
    this.#options = options
  }

  of(registry: string): Circuit {
    const known = this.#circuits.get(registry)
    if (known !== undefined) return known
    const circuit = new Circuit(this.#options)
    this.#circuits.set(registry, circuit)
    return circuit
  }
}
