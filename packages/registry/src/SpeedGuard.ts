/**
 * How fast a peer sends, told apart from how fast its client takes: only the time in which the client waits for bytes
 * counts. A peer that sends nothing at all is not its matter, since it looks only when bytes arrive.
 */
export class SpeedGuard {
  readonly #windowMillis: number
  #bytes = 0
  #waitedMillis = 0
  #waitingSince: number | undefined

  /** Speed is told each time that the client has waited for so long. */
  constructor(windowMillis: number) {
    this.#windowMillis = windowMillis
  }

  /** From now on the client waits. */
  waiting(now: number): void {
    this.#waitingSince = now
  }

  /** The client has got bytes; it waits for the next only from `waiting` on. Gives bytes per second at a window's end. */
  received(bytes: number, now: number): number | undefined {
    this.#bytes += bytes
    this.#waitedMillis += now - (this.#waitingSince ?? now)
    this.#waitingSince = undefined
    if (this.#waitedMillis < this.#windowMillis) return undefined
    const speed = this.#bytes / (this.#waitedMillis / 1000)
    this.#bytes = 0
    this.#waitedMillis = 0
    return speed
  }
}
