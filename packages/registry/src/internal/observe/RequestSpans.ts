/** The span of a request to this node, and those of the steps that ask no peer. */
import { ContentNotFound } from "@spegel-ts/content/ContentStore"
import { clientGone } from "@spegel-ts/transfer/BodyInterrupted"
import { Effect, Option, Result } from "effect"
import * as Headers from "effect/http/Headers"
import * as HttpTraceContext from "effect/http/HttpTraceContext"
import type { IncomingMessage, ServerResponse } from "node:http"
import { failuresOf, type PullEvent } from "../../PullLog.ts"
import { spans } from "../../PullSpans.ts"
import * as Answer from "../serve/Answer.ts"
import { annotate, inSpan, whereRecorded, whereTraced } from "./Recording.ts"

/** The endpoint without names, so that there are few; `/v2/` for every other path. */
const routeOf = (url: string): string => {
  const endpoint = /^\/v2\/[^?]+\/(manifests|blobs|tags|referrers)\/[^/?]+(?:\?|$)/.exec(url)?.[1]
  switch (endpoint) {
    case undefined:
      return "/v2/"
    case "tags":
      return "/v2/{name}/tags/list"
    default:
      return `/v2/{name}/${endpoint}/{${endpoint === "manifests" ? "reference" : "digest"}}`
  }
}

/**
 * A request of the API; probes have no span. It continues the trace of its `traceparent` (W3C Trace Context), whether a
 * peer, containerd or another client sent it. Nothing else depends on that header: a malformed one, or one of another
 * version, is ignored.
 */
export const request = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  { headers, httpVersion, method = "", socket, url = "" }: IncomingMessage
): Effect.Effect<A, E, R> =>
  whereTraced(() => {
    const [path = "", query = ""] = url.split("?", 2)
    if (!path.startsWith("/v2")) return Effect.withTracerEnabled(effect, false)
    const { traceparent } = headers
    const parent = typeof traceparent === "string"
      ? HttpTraceContext.w3c(Headers.fromInput({ traceparent }))
      : Option.none()
    const route = routeOf(url)
    const facts = annotate(() => ({
      "http.request.method": method,
      "http.route": route,
      "url.scheme": "http",
      "url.path": path,
      ...(query === "" ? {} : { "url.query": query }),
      "server.address": socket.localAddress,
      "server.port": socket.localPort,
      "client.address": socket.remoteAddress,
      "client.port": socket.remotePort,
      "network.protocol.version": httpVersion,
      ...(headers["user-agent"] === undefined ? {} : { "user_agent.original": headers["user-agent"] })
    }))
    return Effect.withSpan(Effect.andThen(facts, effect), `${method} ${route}`, {
      kind: "server",
      captureStackTrace: false,
      ...(Option.isSome(parent) ? { parent: parent.value } : { root: true })
    })
  }, effect)

/** The parsing of a request. */
export const parse = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  whereRecorded(() => inSpan(spans.parse)(effect), effect)

/** How the current request was answered. */
export const answered = (
  answer: Answer.Answer,
  { method }: IncomingMessage,
  response: ServerResponse
): Effect.Effect<void> =>
  annotate(() => {
    const interrupted = answer._tag === "Interrupted"
    const reason = Answer.reasonOf(answer)
    return {
      ...(response.headersSent ? { "http.response.status_code": response.statusCode } : {}),
      ...(interrupted || method === "HEAD" ? {} : { "http.response.body.size": answer.bytes }),
      "spegel.outcome": interrupted ? "interrupted" : answer._tag === "Refused" ? "refused" : "served",
      "spegel.source": Answer.sourceOf(answer),
      ...(reason === undefined ? {} : { "spegel.reason": reason }),
      // A client may leave with what it has, as containerd does when it fetches a layer in parts.
      ...(interrupted && reason !== clientGone ? { "error.type": "interrupted" } : {}),
      ...(answer._tag === "Refused" && answer.status >= 500 ? { "error.type": String(answer.status) } : {})
    }
  })

/** The outcome of the current request for content. */
export const pulled = (event: PullEvent): Effect.Effect<void> =>
  annotate(() => {
    const left = failuresOf(event.attempts)
    return {
      "spegel.registry": event.registry,
      "spegel.content": event.content,
      "spegel.asked_by_peer": event.mirrored,
      "spegel.first_byte_ms": event.firstByteMillis,
      ...(event.range === undefined ? {} : { "http.request.header.range": [event.range] }),
      ...(left.length === 0 ? {} : { "spegel.peers.left": left })
    }
  })

/** The search for `content`, a digest or a tag, on this node. A miss is not an error. */
export const localLookup = (content: string) => <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  whereRecorded(
    () =>
      Effect.result(effect).pipe(
        Effect.tap((result) =>
          Effect.annotateCurrentSpan(
            Result.isSuccess(result) || result.failure instanceof ContentNotFound
              ? { "spegel.hit": Result.isSuccess(result) }
              : { "spegel.hit": false, "error.type": "StoreUnavailable" }
          )
        ),
        inSpan(spans.localLookup, { "spegel.content": content }),
        Effect.flatMap(Effect.fromResult)
      ),
    effect
  )

/** The content was in memory: the store was not asked. */
export const heldInMemory: Effect.Effect<void> = annotate(() => ({ "spegel.held_in_memory": true }))
