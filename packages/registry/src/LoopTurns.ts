/**
 * Turns of the event loop for streams that would never have to wait: each could move all of its body in one turn, and a
 * small request, which needs several turns, would wait for all of them in each. Whoever has moved enough waits in line,
 * and one goes on in each turn.
 *
 * So a turn is as long as one stream makes it, however many there are, and what a stream has in the core's cache is not
 * pushed out by the others after each chunk.
 */
export class LoopTurns {
  readonly #line: Array<() => void> = []

  /** Whether somebody waits. */
  get crowded(): boolean {
    return this.#line.length > 0
  }

  /** Calls `resume` in a turn to come, in which nobody else of the line goes on. */
  wait(resume: () => void): void {
    if (this.#line.push(resume) === 1) setImmediate(this.#next)
  }

  readonly #next = (): void => {
    const resume = this.#line.shift()
    if (this.#line.length > 0) setImmediate(this.#next)
    resume?.()
  }
}
