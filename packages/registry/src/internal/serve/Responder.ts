/** Brings every request to an end: each failure of a step becomes an answer, and each answer is accounted for. */
import { clientGone } from "@spegel-ts/transfer/BodyInterrupted"
import { Effect, Option, type Redacted } from "effect"
import type { HotContent } from "../hot/HotContent.ts"
import type { Accounting, Ended } from "../observe/Accounting.ts"
import * as RegistryMetrics from "../observe/RegistryMetrics.ts"
import * as RequestSpans from "../observe/RequestSpans.ts"
import type { Answer } from "./Answer.ts"
import * as BasicAuth from "./BasicAuth.ts"
import type { Endpoints } from "./Endpoints.ts"
import { Refusal, Refused } from "./Refusal.ts"
import { handlerOf } from "./RegistryRequest.ts"
import * as Reply from "./Reply.ts"

export type Credentials = { readonly username: string; readonly password: Redacted.Redacted }

/** Whether an `Authorization` header opens the registry. Without credentials it is open to all. */
export const authorisation = (
  credentials: Option.Option<Credentials>
): (authorization: string | undefined) => boolean =>
  Option.match(credentials, { onNone: () => () => true, onSome: BasicAuth.verifier })

export interface ResponderParts {
  readonly endpoints: Endpoints
  readonly hot: HotContent
  readonly accounting: Accounting
  readonly authorise: (authorization: string | undefined) => boolean
}

/** Answers one request. */
export const make = ({ accounting, authorise, endpoints, hot }: ResponderParts) => (request: Ended) => {
  const { asked, incoming, record, response, started } = request
  const finished = (answer: Answer) => accounting.ended(request, answer)
  const isOpen = asked._tag === "Livez" || asked._tag === "Readyz"
  const authorised = isOpen || authorise(incoming.headers.authorization)
  if (authorised && asked._tag === "Content") {
    const answer = hot.answer({ request: asked.request, response, record }, started)
    if (answer !== undefined) return Effect.andThen(RequestSpans.heldInMemory, finished(answer))
  }
  const answering = authorised
    ? endpoints.answer(asked, response, record)
    : Effect.fail(new Refused({ refusal: Refusal.Unauthorized() }))
  return answering.pipe(
    Effect.catchTag(
      "StoreUnavailable",
      ({ message }) => Effect.fail(new Refused({ refusal: Refusal.StoreUnavailable({ message }) }))
    ),
    Effect.catchDefect((defect) =>
      Effect.andThen(
        Effect.logError("a request failed unexpectedly", defect),
        Effect.fail(new Refused({ refusal: Refusal.Defect() }))
      )
    ),
    Effect.catchTag(
      "Refused",
      ({ refusal }) => Reply.refuse(response, refusal, asked._tag === "Content" ? asked.request : undefined)
    ),
    // The client has gone: there is nobody to answer.
    Effect.catchTag("BodyInterrupted", ({ message }) => Effect.succeed(Reply.interrupt(response, message))),
    RegistryMetrics.counted(handlerOf(asked)),
    Effect.onInterrupt(() => finished(Reply.interrupt(response, clientGone))),
    Effect.flatMap(finished)
  )
}
