/** Dials bootstrap addresses: in a random order, in waves, and those first that were dialled least recently. */
import { type Multiaddr, multiaddr } from "@multiformats/multiaddr"
import { Data, type Duration, Effect, Exit, FiberSet, Queue, Random, Semaphore } from "effect"

/** A bootstrap address did not lead to a peer. */
export class DialFailed extends Data.TaggedError("DialFailed")<{ readonly reason: string }> {
  override get message() {
    return this.reason
  }
}

/** Connects to an address. It is interrupted when it takes too long. */
export type Dial = (address: Multiaddr) => Effect.Effect<void, DialFailed>

/** So many peers are enough to begin with: they name the others. */
const enough = 3
/** The first wave is small, so that not every new node dials a whole large cluster. */
const firstWave = 8
/** Later waves follow while too few have answered: most of the addresses may be dead. */
const laterWave = 32
const waveMillis = 150
const dialsAtOnce = 256

export class BootstrapDialer {
  readonly #dial: Dial
  readonly #fibers: FiberSet.FiberSet<void>
  readonly #permits: Semaphore.Semaphore
  #round = 0
  /** The round in which each address was last dialled. */
  #dialled = new Map<string, number>()

  /** A dialer whose dials end with the scope. */
  static readonly make = (dial: Dial) =>
    Effect.map(
      Effect.all([FiberSet.make<void>(), Semaphore.make(dialsAtOnce)]),
      ([fibers, permits]) => new BootstrapDialer(dial, fibers, permits)
    )

  private constructor(dial: Dial, fibers: FiberSet.FiberSet<void>, permits: Semaphore.Semaphore) {
    this.#dial = dial
    this.#fibers = fibers
    this.#permits = permits
  }

  /** Puts addresses in a random order, the least recently dialled first. */
  order(addresses: ReadonlyArray<string>): Effect.Effect<ReadonlyArray<string>> {
    this.#round++
    // Addresses that are no longer named are forgotten, so that the map does not grow as they come and go.
    this.#dialled = new Map(addresses.map((address) => [address, this.#dialled.get(address) ?? 0]))
    return Effect.map(
      Random.shuffle(addresses),
      (shuffled) => shuffled.toSorted((a, b) => (this.#dialled.get(a) ?? 0) - (this.#dialled.get(b) ?? 0))
    )
  }

  /** Dials one address; true if a peer is there. */
  attempt(address: string, timeout: Duration.Duration): Effect.Effect<boolean> {
    this.#dialled.set(address, this.#round)
    return this.#permits.withPermits(1)(
      this.#dial(multiaddr(address)).pipe(
        Effect.timeout(timeout),
        Effect.as(true),
        Effect.catch((error) =>
          Effect.as(Effect.logDebug(`bootstrap: ${address} did not answer: ${error.message}`), false)
        )
      )
    )
  }

  /** Dials waves of addresses until enough have answered; returns how many did. A slow wave does not hold up the next. */
  readonly sweep = Effect.fnUntraced({ self: this }, function*(
    this: BootstrapDialer,
    addresses: ReadonlyArray<string>,
    timeout: Duration.Duration
  ) {
    const results = yield* Queue.unbounded<boolean>()
    const state = { from: 0, running: 0, reached: 0 }
    const isDone = () => state.reached >= enough
    const settled = Effect.repeat(
      Effect.map(Queue.take(results), (reached) => {
        state.running--
        if (reached) state.reached++
      }),
      { until: () => state.running === 0 || isDone() }
    )
    while (state.from < addresses.length && !isDone()) {
      const wave = addresses.slice(state.from, state.from + (state.from === 0 ? firstWave : laterWave))
      state.from += wave.length
      for (const address of wave) {
        state.running++
        yield* FiberSet.run(
          this.#fibers,
          Effect.flatMap(
            Effect.exit(this.attempt(address, timeout)),
            (exit) => Queue.offer(results, Exit.isSuccess(exit) && exit.value)
          )
        )
      }
      yield* state.from < addresses.length ? Effect.timeoutOption(settled, waveMillis) : settled
    }
    return state.reached
  })
}
