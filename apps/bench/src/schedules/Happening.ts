/** Lets the events of a schedule happen. */
import { Effect } from "effect"
import type { HerdNode } from "../herd/HerdNode.ts"
import type { Mirrors, Release } from "../soak/Mirrors.ts"
import type { Puller } from "./Puller.ts"
import type { Requests } from "./Requests.ts"
import type { Event, Kind } from "./Schedule.ts"

/** What an event is about. */
export interface Struck {
  readonly node: HerdNode
  readonly puller: Puller
  readonly mirrors: Mirrors
  readonly release: Release
  readonly requests: Requests
}

/** An event that has begun. */
export interface Happened {
  readonly kind: Kind
  readonly node: string
  /** In seconds after the beginning of the schedule. */
  readonly seconds: number
  /** Whether any node was pulling; the node itself, if it is about that one's pull. */
  readonly isInTime: boolean
  /** Seconds for which the node's mirror stood still. */
  readonly frozen: number
  /** The exit code of a mirror that was stopped; null if it was killed instead. */
  readonly code: number | null | undefined
}

/** Lets it happen, and ends once the node is whole again; gives the exit code of a mirror that was stopped. */
export const happen = (event: Event, struck: Struck): Effect.Effect<number | null | undefined, unknown> =>
  event.kind === "mirror stopped"
    ? stopMirror(event, struck)
    : Effect.as(others[event.kind](event, struck), undefined)

const stopMirror = Effect.fnUntraced(function*({ pause }: Event, { mirrors, node, release, requests }: Struck) {
  yield* requests.read(node)
  const code = yield* mirrors.stop(node)
  yield* Effect.sleep(pause)
  yield* mirrors.start(node, release)
  return code
})

type Other = (event: Event, struck: Struck) => Effect.Effect<unknown, unknown>

const others: Readonly<Record<Exclude<Kind, "mirror stopped">, Other>> = {
  "mirror killed": ({ pause }, { mirrors, node, release, requests }) =>
    requests.read(node).pipe(
      Effect.andThen(mirrors.kill(node)),
      Effect.andThen(Effect.sleep(pause)),
      Effect.andThen(mirrors.start(node, release))
    ),
  "pull interrupted": ({ pause }, { puller }) => puller.interrupt(pause),
  "containerd restarted": (_, { node, puller }) =>
    Effect.andThen(Effect.sync(() => puller.excuse()), node.containerd.restart),
  "mirror frozen": ({ pause }, { mirrors, node }) => mirrors.freeze(node, pause)
}
