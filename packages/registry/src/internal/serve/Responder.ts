/** Brings every request to an end: each failure of a step becomes an answer, and each answer is accounted for. */
import { clientGone } from "@spegel-ts/transfer/BodyInterrupted"
import { Effect } from "effect"
import type { AccessControl, Admission } from "../auth/AccessControl.ts"
import { type Caller, isOwn } from "../auth/Caller.ts"
import type { HotContent } from "../hot/HotContent.ts"
import type { Accounting, Ended } from "../observe/Accounting.ts"
import * as AuthMetrics from "../observe/AuthMetrics.ts"
import * as RegistryMetrics from "../observe/RegistryMetrics.ts"
import * as RequestSpans from "../observe/RequestSpans.ts"
import type { RunningRequests } from "../observe/RunningRequests.ts"
import type { Answer } from "./Answer.ts"
import type { Endpoints } from "./Endpoints.ts"
import { Refusal, Refused } from "./Refusal.ts"
import { handlerOf, type RegistryRequest } from "./RegistryRequest.ts"
import * as Reply from "./Reply.ts"

export interface ResponderParts {
  readonly endpoints: Endpoints
  readonly hot: HotContent
  readonly accounting: Accounting
  readonly access: AccessControl
  readonly requests: RunningRequests
}

/** A peer is answered from local content only, also if somebody on the way removed the header that says so. */
const askedBy = (caller: Caller | undefined, asked: RegistryRequest): RegistryRequest =>
  caller?._tag === "Peer" && asked._tag === "Content" && !asked.request.mirrored
    ? { ...asked, request: { ...asked.request, mirrored: true } }
    : asked

/** Whether a request is one for content, and not one of a stranger who is told nothing. */
const isPull = (admission: Admission): boolean =>
  admission._tag === "Admitted" || admission.refusal._tag === "NoPassword"

/** Answers one request. */
export const make = ({ accounting, endpoints, access, hot, requests }: ResponderParts) => (received: Ended) => {
  const { incoming, record, response, started } = received
  const admission = access.admit(received.asked, incoming)
  const caller = admission._tag === "Admitted" ? admission.caller : undefined
  const asked = askedBy(caller, received.asked)
  const { proof } = admission
  const finished = (answer: Answer) => accounting.ended({ ...received, asked }, answer, isPull(admission))
  const counted = AuthMetrics.counted(admission)
  if (caller !== undefined && asked._tag === "Content") {
    const { request } = asked
    const answer = hot.answer({ request, response, record, proof, own: isOwn(caller, request) }, started)
    if (answer !== undefined) {
      return Effect.andThen(counted, Effect.andThen(RequestSpans.heldInMemory, finished(answer)))
    }
  }
  const answering = admission._tag === "Admitted"
    ? requests.during(
      { ...received, asked },
      admission.caller,
      endpoints.answer(asked, { response, record, proof, caller: admission.caller })
    )
    : Effect.fail(new Refused({ refusal: admission.refusal }))
  return Effect.andThen(counted, answering).pipe(
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
      ({ refusal }) => Reply.refuse({ response, proof }, refusal, asked._tag === "Content" ? asked.request : undefined)
    ),
    // The client has gone: there is nobody to answer.
    Effect.catchTag("BodyInterrupted", ({ message }) => Effect.succeed(Reply.interrupt(response, message))),
    RegistryMetrics.counted(handlerOf(asked)),
    Effect.onInterrupt(() => finished(Reply.interrupt(response, clientGone))),
    Effect.flatMap(finished)
  )
}
