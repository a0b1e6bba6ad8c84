/** Counts the proofs that failed, for metrics, and collects them for the log. */
import { BoundedMap } from "@spegel-ts/background/BoundedMap"
import type { FailureReason } from "./ProofFailure.ts"

/** A proof that failed. */
export interface Failure {
  readonly reason: FailureReason
  readonly id: string
  /** The IP of the connection. */
  readonly address: string
}

/** Peers that are collected for one line of the log; of more, the latest. */
export const maxCollected = 64

export class FailureLog {
  readonly counts = new Map<FailureReason, number>()
  #collected = new BoundedMap<string, Failure>(maxCollected)

  add(failure: Failure): void {
    this.counts.set(failure.reason, (this.counts.get(failure.reason) ?? 0) + 1)
    this.#collected.set(failure.id, failure)
  }

  get isEmpty(): boolean {
    return this.#collected.size === 0
  }

  /** The failures since the last call, one for each peer. */
  take(): ReadonlyArray<Failure> {
    const failures = [...this.#collected.values()]
    this.#collected = new BoundedMap(maxCollected)
    return failures
  }
}
