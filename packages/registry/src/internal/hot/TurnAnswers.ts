/**
 * Sends the answers of one turn of the event loop together, after the turn has read all requests that arrived. An answer
 * that is sent alone wakes its client alone, which is a large part of what a small answer costs.
 */
import type { OutgoingHttpHeaders, ServerResponse } from "node:http"

interface TurnAnswer {
  readonly response: ServerResponse
  readonly headers: OutgoingHttpHeaders
  readonly bytes: Uint8Array
}

export class TurnAnswers {
  #waiting: Array<TurnAnswer> = []

  /** Answers 200 with all of `bytes` before the next turn, unless the client has gone by then. */
  give(answer: TurnAnswer): void {
    if (this.#waiting.push(answer) === 1) setImmediate(() => this.#giveAll())
  }

  #giveAll(): void {
    const answers = this.#waiting
    this.#waiting = []
    for (const { bytes, headers, response } of answers) {
      if (!response.destroyed) response.writeHead(200, headers).end(bytes)
    }
  }
}
