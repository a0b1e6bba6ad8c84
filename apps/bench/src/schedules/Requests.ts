/** What the mirrors' logs of requests say (`/debug/pulls`). A mirror that is killed loses its log: it is read before. */
import { Effect, Schema } from "effect"
import type { HerdNode } from "../herd/HerdNode.ts"
import type { Taken } from "./Sources.ts"

const Request = Schema.Struct({
  time: Schema.Number,
  method: Schema.String,
  mirrored: Schema.Boolean,
  content: Schema.String,
  range: Schema.optional(Schema.String),
  source: Schema.String,
  status: Schema.Number,
  bytes: Schema.Number,
  firstByteMillis: Schema.Number,
  millis: Schema.Number,
  attempts: Schema.Array(
    Schema.Struct({ peer: Schema.String, start: Schema.Number, bytes: Schema.Number, outcome: Schema.String })
  ),
  reason: Schema.String
})
type Request = typeof Request.Type

/** A request that a node's mirror has answered. */
export interface Answered extends Request {
  readonly node: string
}

const Log = Schema.Array(Request)
const Members = Schema.Array(Schema.Struct({ id: Schema.String, self: Schema.optional(Schema.Boolean) }))

/** The id of a node's mirror, which it keeps. */
export const idOf = Effect.fnUntraced(function*(node: HerdNode) {
  const members = yield* Effect.flatMap(node.debug("peers"), Schema.decodeUnknownEffect(Members))
  const own = members.find(({ self }) => self === true)
  return own === undefined ? yield* Effect.die(new Error(`the mirror of ${node.name} does not say its id`)) : own.id
})

/** Requests of one schedule, by all mirrors. */
export class Requests {
  readonly #names: ReadonlyMap<string, string>
  readonly #since: number
  readonly #answered = new Map<string, Answered>()

  /** `names` are those of nodes by the ids of their mirrors; only requests from the time `since` count. */
  constructor(names: ReadonlyMap<string, string>, since: number) {
    this.#names = names
    this.#since = since
  }

  /** Adds those that a mirror knows. */
  read(node: HerdNode) {
    return node.debug("pulls").pipe(
      Effect.flatMap(Schema.decodeUnknownEffect(Log)),
      Effect.map((requests) => {
        for (const request of requests) {
          if (request.time < this.#since) continue
          const answered: Answered = { node: node.name, ...request }
          this.#answered.set(JSON.stringify(answered), answered)
        }
      })
    )
  }

  get all(): ReadonlyArray<Answered> {
    return [...this.#answered.values()].toSorted((one, other) => one.time - other.time)
  }

  /** Bytes of digests that nodes took from each other. */
  get taken(): ReadonlyArray<Taken> {
    return this.all.filter(({ content }) => content.startsWith("sha256:")).flatMap(({ attempts, content, node }) =>
      attempts.filter(({ bytes }) => bytes > 0).map(({ bytes, peer, start }): Taken => ({
        content,
        by: node,
        from: this.#nameOf(peer),
        start,
        end: start + bytes
      }))
    )
  }

  #nameOf(peer: string): string {
    const name = this.#names.get(peer)
    if (name === undefined) throw new Error(`a mirror took bytes from ${peer}, which is none of the nodes`)
    return name
  }
}
