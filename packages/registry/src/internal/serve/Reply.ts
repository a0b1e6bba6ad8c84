/** Answers without content: JSON documents, errors, and connections that are closed early. */
import type { BodyInterrupted } from "@spegel-ts/transfer/BodyInterrupted"
import { Effect } from "effect"
import type { OutgoingHttpHeaders, ServerResponse } from "node:http"
import type { ContentRequest } from "../../ContentId.ts"
import * as AnswerProof from "../auth/AnswerProof.ts"
import type { Answer, Served } from "./Answer.ts"
import { finish } from "./BlobBody.ts"
import * as Refusal from "./Refusal.ts"

export const apiVersion = { "docker-distribution-api-version": "registry/2.0" }

/** Where an answer goes, and how it is proved if a peer asks for that. */
export interface Destination {
  readonly response: ServerResponse
  readonly proof: AnswerProof.AnswerProof | undefined
}

/** Closes the connection before the answer is complete. `from` is the answer whose head went out. */
export const interrupt = (response: ServerResponse, reason: string, from?: Served): Answer => {
  response.destroy()
  return { _tag: "Interrupted", bytes: from?.bytes ?? 0, source: from?.source, reason }
}

/** As `interrupt`, but with an RST: the client sees a failure, and does not continue where the body ended. */
export const reset = (response: ServerResponse, reason: string, from: Served): Answer => {
  response.socket?.resetAndDestroy()
  return interrupt(response, reason, from)
}

/** Sends a JSON document. */
export const json = (
  { proof, response }: Destination,
  status: number,
  body: string,
  headers: OutgoingHttpHeaders = {}
): Effect.Effect<Served, BodyInterrupted> =>
  Effect.suspend(() => {
    const bytes = Buffer.byteLength(body)
    const fields = { "content-type": "application/json", "content-length": bytes, ...apiVersion, ...headers }
    response.writeHead(status, AnswerProof.sign(proof, status, fields))
    response.write(body)
    return Effect.as(finish(response), { _tag: "Served", status, bytes })
  })

/** Sends the error of a refusal, or closes the connection if the head of an answer is out already. */
export const refuse = (
  destination: Destination,
  refusal: Refusal.Refusal,
  request: ContentRequest | undefined
): Effect.Effect<Answer, BodyInterrupted> =>
  Effect.suspend(() => {
    const { error, headers = {} } = Refusal.tell(refusal, request)
    const { response } = destination
    if (response.headersSent) return Effect.succeed(interrupt(response, error.message))
    // RFC 9110, section 15.5.6.
    const allow = error.status === 405 ? { allow: "GET, HEAD" } : {}
    return Effect.map(
      json(destination, error.status, error.body(), { ...headers, ...allow }),
      ({ bytes, status }) => ({ _tag: "Refused", status, bytes, reason: error.message })
    )
  })
