/** How a request was answered, and the small answers: JSON documents and errors. */
import type { DistributionError } from "@spegel-ts/oci/DistributionError"
import type { BodyInterrupted } from "@spegel-ts/transfer/BodyInterrupted"
import { Effect } from "effect"
import type { ServerResponse } from "node:http"
import { finish } from "./internal/serve/BlobBody.ts"

export interface Answer {
  /** HTTP status; 0 where the body was not sent to its end. */
  readonly status: number
  /** Body bytes that were to be sent. */
  readonly bytes: number
  /** `local`, a peer's id, or `none`. */
  readonly source: string
  /** Why there was no content, or not all of it. */
  readonly reason?: string
}

export const apiVersion = { "docker-distribution-api-version": "registry/2.0" }

/** An answer that went no further than `from`: the connection is closed early. */
export const interrupted = (response: ServerResponse, reason: string, from?: Answer): Answer => {
  response.destroy()
  return { bytes: 0, source: "none", ...from, status: 0, reason }
}

/** As `interrupted`, so that the client sees a failure and does not go on where the body ended. */
export const reset = (response: ServerResponse, reason: string, from: Answer): Answer => {
  response.socket?.resetAndDestroy()
  return interrupted(response, reason, from)
}

export const sendJson = (
  response: ServerResponse,
  status: number,
  body: string
): Effect.Effect<Answer, BodyInterrupted> =>
  Effect.suspend(() => {
    const bytes = Buffer.byteLength(body)
    response.writeHead(status, { "content-type": "application/json", "content-length": bytes, ...apiVersion })
    response.write(body)
    return Effect.as(finish(response), { status, bytes, source: "none" })
  })

/** The error's OCI body, unless the head of another answer is out already. */
export const sendError = (
  response: ServerResponse,
  error: DistributionError
): Effect.Effect<Answer, BodyInterrupted> =>
  Effect.suspend(() => {
    if (response.headersSent) return Effect.succeed(interrupted(response, error.message))
    // RFC 9110, section 15.5.6.
    if (error.status === 405) response.setHeader("allow", "GET, HEAD")
    return Effect.map(
      sendJson(response, error.status, error.body()),
      (answer) => ({ ...answer, reason: error.message })
    )
  })
