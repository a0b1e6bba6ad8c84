/** The pulls of one image by many nodes. */
import type { RandomImage } from "@spegel-ts/testing/content/RandomImage"
import { Cause, Effect, Fiber } from "effect"
import type { HerdNode } from "./HerdNode.ts"

/** Times are in seconds. */
export interface Pulled {
  readonly node: HerdNode
  /** From its own start to its last commit. */
  readonly own: number
  /** From the first start of all. */
  readonly total: number
  /** The longest time in which it got no byte. */
  readonly gap: number
  readonly isDone: boolean
}

export interface PullsOptions {
  readonly nodes: ReadonlyArray<HerdNode>
  readonly image: RandomImage
  /** Its name. */
  readonly name: string
  /** How many seconds lie between the first start and the last. */
  readonly spread: number
  /** Whether a node was lost: nobody waits for its pull. */
  readonly isLost: (node: HerdNode) => boolean
  /** When the first one starts, by `performance.now`. */
  readonly begun: number
}

const lookEvery = "20 millis"

/** Seconds since a time of `performance.now`. */
export const since = (begun: number): number => (performance.now() - begun) / 1000

/** Pulls on all nodes, and waits until each has the image, has failed, or was lost. */
export const all = (options: PullsOptions) => {
  const { isLost, nodes, spread } = options
  return Effect.forEach(nodes, (node, index) => {
    const lost = Effect.as(
      Effect.repeat(Effect.sleep(lookEvery), { until: () => isLost(node) }),
      { node, own: 0, total: 0, gap: 0, isDone: false } satisfies Pulled
    )
    const delay = (spread * index) / Math.max(1, nodes.length - 1)
    return Effect.raceFirst(Effect.andThen(Effect.sleep(delay * 1000), pull(options, node)), lost)
  }, { concurrency: "unbounded" })
}

const pull = Effect.fnUntraced(function*({ begun, image, name }: PullsOptions, node: HerdNode) {
  const { committed, gap, isDone, own } = yield* watch(node, image, node.pull(name))
  return { node, own, total: (committed - begun) / 1000, gap, isDone } satisfies Pulled
})

export interface Watched extends Pick<Pulled, "own" | "gap" | "isDone"> {
  /** When the node had the image, or when its pull failed, by `performance.now`. */
  readonly committed: number
  /** Why the client says that it failed. */
  readonly error: string | undefined
}

/** Runs the pull of a node to its end, and watches its bytes until the last commit. */
export const watch = Effect.fnUntraced(
  function*(node: HerdNode, image: RandomImage, client: Effect.Effect<unknown, unknown>) {
    const started = performance.now()
    const pulling = yield* Effect.forkChild(Effect.exit(client))
    let received = 0
    let grewAt = started
    let gap = 0
    const look = Effect.gen(function*() {
      yield* Effect.sleep(lookEvery)
      const now = yield* Effect.promise(() => node.received(image))
      if (now > received) {
        gap = Math.max(gap, since(grewAt))
        grewAt = performance.now()
        received = now
      }
      return node.holds(image)
    })
    const held = Effect.repeat(look, { until: (holds) => holds })
    const ended = Effect.map(Fiber.join(pulling), (exit) => exit._tag === "Success")
    const isDone = yield* Effect.raceFirst(held, ended)
    const committed = performance.now()
    const exit = yield* Fiber.join(pulling)
    const error = exit._tag === "Success" ? undefined : Cause.prettyErrors(exit.cause).map(String).join("; ")
    return { own: (committed - started) / 1000, gap, isDone, committed, error } satisfies Watched
  }
)
