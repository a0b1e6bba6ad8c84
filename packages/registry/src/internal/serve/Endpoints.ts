/** Routes a parsed request to the endpoint that answers it (OCI distribution specification 1.1; `/livez`, `/readyz`). */
import { ContentStore, type StoreUnavailable } from "@spegel-ts/content/ContentStore"
import * as DistributionRequest from "@spegel-ts/oci/DistributionRequest"
import { Router } from "@spegel-ts/router/Router"
import type { BodyInterrupted } from "@spegel-ts/transfer/BodyInterrupted"
import { Effect, Option, Stream } from "effect"
import type { Activity } from "../../Activity.ts"
import { type Caller, isOwn } from "../auth/Caller.ts"
import type { HotContent } from "../hot/HotContent.ts"
import type { BodyMemory } from "../memory/BodyMemory.ts"
import type { PullRecord } from "../observe/PullRecord.ts"
import type { Answer } from "./Answer.ts"
import * as ContentAnswer from "./ContentAnswer.ts"
import * as LocalContent from "./LocalContent.ts"
import { Refusal, Refused } from "./Refusal.ts"
import type { RegistryRequest } from "./RegistryRequest.ts"
import * as Reply from "./Reply.ts"

type TagsList = Extract<RegistryRequest, { readonly _tag: "TagsList" }>

/** A request that may be answered, whatever it asks for. */
export interface Exchange extends Reply.Destination {
  readonly record: PullRecord
  readonly caller: Caller
}

export interface Endpoints {
  readonly answer: (
    asked: RegistryRequest,
    exchange: Exchange
  ) => Effect.Effect<Answer, BodyInterrupted | Refused | StoreUnavailable>
  /** Makes `/readyz` answer 503 from now on. */
  readonly retire: Effect.Effect<void>
  /** What is going on beside the requests themselves. */
  readonly activity: Effect.Effect<Omit<Activity, "requests">>
}

export const make = Effect.fnUntraced(function*(
  options: ContentAnswer.ContentOptions,
  { hot, memory }: { readonly hot: HotContent; readonly memory: BodyMemory }
) {
  const store = yield* ContentStore
  const router = yield* Router
  const local = yield* LocalContent.make
  const content = yield* ContentAnswer.make(options, { hot, local, memory })
  let retired = false

  const ready = Effect.fnUntraced(function*(exchange: Exchange) {
    if (retired) return yield* new Refused({ refusal: Refusal.Stopping() })
    if (!(yield* router.ready)) {
      const standing = yield* router.standing
      const reason = standing._tag === "Joining" ? standing.reason : undefined
      return yield* new Refused({ refusal: Refusal.Joining({ reason }) })
    }
    // Fails if the store cannot be asked.
    yield* store.names.pipe(Stream.take(1), Stream.runDrain)
    return yield* Reply.json(exchange, 200, "{}")
  })

  const tagsList = Effect.fnUntraced(function*(asked: TagsList, exchange: Exchange) {
    const all = yield* local.tags(asked)
    const after = Option.match(asked.last, {
      onNone: () => all,
      onSome: (last) => all.filter((tag) => tag > last)
    })
    const page = Option.match(asked.n, { onNone: () => after, onSome: (n) => after.slice(0, n) })
    const last = page.at(-1)
    const more = last !== undefined && page.length < after.length
      ? { link: `<${DistributionRequest.print({ ...asked, last: Option.some(last) }).url}>; rel="next"` }
      : {}
    return yield* Reply.json(exchange, 200, JSON.stringify({ name: asked.repository, tags: page }), more)
  })

  return {
    answer: (asked, exchange) => {
      switch (asked._tag) {
        case "Livez":
        case "Ping":
          return Reply.json(exchange, 200, "{}")
        case "Readyz":
          return ready(exchange)
        case "TagsList":
          return tagsList(asked, exchange)
        case "Referrers":
          return Effect.fail(new Refused({ refusal: Refusal.Referrers() }))
        case "Invalid":
          return Effect.fail(new Refused({ refusal: Refusal.Invalid({ error: asked.error }) }))
        case "Content":
          return content.answer(
            { ...exchange, request: asked.request, own: isOwn(exchange.caller, asked.request) },
            asked
          )
      }
    },
    retire: Effect.sync(() => {
      retired = true
    }),
    activity: content.activity
  } satisfies Endpoints
})
