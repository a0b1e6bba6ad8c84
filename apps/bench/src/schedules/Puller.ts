/** The pull of one node in a schedule: repeated by its client when an event has cut it short, as the kubelet does. */
import type { RandomImage } from "@spegel-ts/testing/content/RandomImage"
import { Effect, Exit, Fiber } from "effect"
import type { HerdNode } from "../herd/HerdNode.ts"
import * as Pulls from "../herd/Pulls.ts"
import type { Start } from "./Schedule.ts"

/** A pull to its end. */
export interface Pulled {
  readonly node: HerdNode
  readonly attempts: number
  /** The longest time without a byte in one attempt, in seconds. */
  readonly gap: number
  /** Why the node does not have the image; undefined if it has it. */
  readonly error: string | undefined
}

export interface PullerOptions {
  readonly node: HerdNode
  readonly image: RandomImage
  /** Its name. */
  readonly name: string
  readonly start: Start
}

/** After a pull was cut short: containerd may not be back, or may not have cleared the download away. */
const maxAttempts = 8
const pauseBeforeRepeat = "500 millis"

export class Puller {
  readonly #options: PullerOptions
  #running: Fiber.Fiber<Pulls.Watched> | undefined
  /** How long the client that was killed is away, in milliseconds. */
  #away = 0
  #isExcused = false
  #mayHaveLost = false

  constructor(options: PullerOptions) {
    this.#options = options
  }

  get node(): HerdNode {
    return this.#options.node
  }

  get isPulling(): boolean {
    return this.#running !== undefined
  }

  /** Whether containerd may have discarded what it had of the image. */
  get mayHaveLost(): boolean {
    return this.#mayHaveLost
  }

  /** A pull that fails from now on is repeated: its containerd is killed. */
  excuse(): void {
    this.#isExcused = this.#mayHaveLost = true
  }

  /** Kills the client, or cancels its call, if the pull is under way. It pulls again after so many milliseconds. */
  interrupt(pauseMillis: number): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.#running === undefined) return Effect.void
      this.#isExcused = true
      // containerd keeps what a client downloads itself, and discards a download of its own.
      if (this.#options.start.client === "CRI") this.#mayHaveLost = true
      this.#away = pauseMillis
      return Fiber.interrupt(this.#running)
    })
  }

  /** Pulls until the node has the image, or a pull has failed that nothing cut short. */
  readonly run: Effect.Effect<Pulled> = Effect.suspend(() => {
    const { image, name, node, start: { at, client } } = this.#options
    const ask = client === "CRI" ? node.pullByCri(name) : node.pull(name)
    return Effect.gen({ self: this }, function*() {
      yield* Effect.sleep(at)
      let gap = 0
      for (let attempts = 1;; attempts++) {
        this.#running = yield* Effect.forkChild(Pulls.watch(node, image, ask))
        const exit = yield* Fiber.await(this.#running)
        this.#running = undefined
        if (Exit.isSuccess(exit)) {
          gap = Math.max(gap, exit.value.gap)
          const { error } = exit.value
          if (error === undefined || !this.#isExcused || attempts >= maxAttempts) return { node, attempts, gap, error }
          yield* Effect.sleep(pauseBeforeRepeat)
        } else yield* Effect.sleep(this.#away)
      }
    })
  })
}
