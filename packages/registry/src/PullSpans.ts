/**
 * The spans that explain a request: what was asked, whether this node held it, whom the lookup named, what each peer gave
 * and why it was left, whether the bytes were right. Names and attributes are OpenTelemetry's for HTTP where it has them
 * (semantic conventions 1.2x), else `spegel.*`.
 *
 * They go to the program's `Tracer`. Even a span that nobody records costs a microsecond and more, so none is made where
 * `TracerEnabled` is false, and few are in a trace that is not sampled. Spans last as long as bodies do; no byte moves through one.
 */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import { ContentNotFound } from "@spegel-ts/content/ContentStore"
import type { HttpRequest } from "@spegel-ts/oci/DistributionRequest"
import type { Peer } from "@spegel-ts/router/Peer"
import { clientGone } from "@spegel-ts/transfer/BodyInterrupted"
import { PeerRefused } from "@spegel-ts/transfer/PeerError"
import type { PeerResponse } from "@spegel-ts/transfer/PeerTransport"
import { Clock, Effect, Exit, Option, Result, Scope, Stream } from "effect"
import * as Headers from "effect/http/Headers"
import * as HttpTraceContext from "effect/http/HttpTraceContext"
import * as Tracer from "effect/Tracer"
import type { IncomingMessage, ServerResponse } from "node:http"
import type { Answer } from "./Answer.ts"
import type { AttemptEntry, PullEvent } from "./PullLog.ts"

type Attributes = Readonly<Record<string, unknown>>

const spans = {
  parse: "parse",
  localLookup: "local lookup",
  peerLookup: "peer lookup",
  askPeer: "ask peer",
  verify: "verify"
} as const

/** The names of all spans but those of requests. */
export const names: ReadonlySet<string> = new Set(Object.values(spans))

/** Does `traced` where spans are made, else `plain`. */
const whereTraced = <A, E, R, A2, E2, R2>(
  traced: () => Effect.Effect<A, E, R>,
  plain: Effect.Effect<A2, E2, R2>
): Effect.Effect<A | A2, E | E2, R | R2> =>
  Effect.withFiber<A | A2, E | E2, R | R2>(({ cache }) => cache.tracerEnabled ? traced() : plain)

/** Does `recorded` where the current span is sampled, else `plain`. */
const whereRecorded = <A, E, R, A2, E2, R2>(
  recorded: () => Effect.Effect<A, E, R>,
  plain: Effect.Effect<A2, E2, R2>
): Effect.Effect<A | A2, E | E2, R | R2> =>
  Effect.withFiber<A | A2, E | E2, R | R2>(({ cache: { span, tracerEnabled } }) =>
    tracerEnabled && span?._tag === "Span" && span.sampled ? recorded() : plain
  )

const annotate = (attributes: () => Attributes): Effect.Effect<void> =>
  whereRecorded(() => Effect.annotateCurrentSpan(attributes()), Effect.void)

const inSpan = (name: string, attributes?: Attributes) => <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.withSpan(effect, name, { captureStackTrace: false, attributes })

/** The endpoint without its names, so that there are few; `/v2/` for what is none. */
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
 * One request of the API; probes are none. It goes on with the trace of its `traceparent` (W3C Trace Context), whoever
 * sent it: a peer, containerd or another client. Nothing else depends on the header; one that is malformed or of another
 * version is as good as none.
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

/** Reading what is asked. */
export const parse = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  whereRecorded(() => inSpan(spans.parse)(effect), effect)

/** What the current request came to. */
export const answered = (answer: Answer, { method }: IncomingMessage, response: ServerResponse): Effect.Effect<void> =>
  annotate(() => {
    const { bytes, reason, source, status } = answer
    return {
      ...(response.headersSent ? { "http.response.status_code": response.statusCode } : {}),
      ...(status === 0 || method === "HEAD" ? {} : { "http.response.body.size": bytes }),
      "spegel.outcome": status === 0 ? "interrupted" : status < 400 ? "served" : "refused",
      "spegel.source": source,
      ...(reason === undefined ? {} : { "spegel.reason": reason }),
      // A client may leave with what it has: containerd does where it fetches a layer in parts.
      ...(status === 0 && reason !== clientGone ? { "error.type": "interrupted" } : {}),
      ...(status >= 500 ? { "error.type": String(status) } : {})
    }
  })

/** What the current request was about, where that is content. */
export const pulled = (event: PullEvent, mirrored: boolean): Effect.Effect<void> =>
  annotate(() => {
    const left = event.attempts.flatMap(({ address, outcome }) =>
      outcome === "served" ? [] : [`${address}: ${outcome}`]
    )
    return {
      "spegel.registry": event.registry,
      "spegel.content": event.content,
      "spegel.asked_by_peer": mirrored,
      "spegel.first_byte_ms": event.firstByteMillis,
      ...(event.range === undefined ? {} : { "http.request.header.range": [event.range] }),
      ...(left.length === 0 ? {} : { "spegel.peers.left": left })
    }
  })

/** Looking for `content`, a digest or a tag, on this node. That it is not held is no error. */
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

/** What was asked for is in memory: nothing is looked for. */
export const heldInMemory: Effect.Effect<void> = annotate(() => ({ "spegel.held_in_memory": true }))

/** Asking the router who has something. */
export const peerLookup = <E, R>(peers: Stream.Stream<Peer, E, R>): Stream.Stream<Peer, E, R> =>
  Stream.unwrap(whereRecorded(
    () =>
      Effect.map(MonotonicTime.millis, (started) => {
        let found = 0
        return peers.pipe(
          Stream.tap(() =>
            Effect.flatMap(MonotonicTime.millis, (now) => {
              found++
              return Effect.annotateCurrentSpan({
                "spegel.peers.found": found,
                ...(found === 1 ? { "spegel.first_peer_ms": now - started } : {})
              })
            })
          ),
          Stream.withSpan(spans.peerLookup, { captureStackTrace: false, attributes: { "spegel.peers.found": 0 } })
        )
      }),
    Effect.succeed(peers)
  ))

/** What a peer was said to hold, and does not hold any more, is no error. */
const isMiss = (exit: Exit.Exit<unknown, unknown>): boolean =>
  Option.exists(Exit.findErrorOption(exit), (error) => error instanceof PeerRefused && error.status === 404)

/** Asking one peer, from the first byte sent to the last one taken: as long as `scope` is open. */
export const attempt = (
  scope: Scope.Scope,
  peer: Peer,
  entry: Readonly<AttemptEntry>
): Effect.Effect<Option.Option<Tracer.Span>> =>
  whereTraced(
    () =>
      Effect.makeSpan(spans.askPeer, {
        kind: "client",
        attributes: {
          "server.address": peer.addresses[0] ?? "",
          "server.port": peer.servicePort,
          "spegel.peer.id": peer.id,
          "spegel.start": entry.start,
          "spegel.hedge": entry.hedge
        }
      }).pipe(
        Effect.tap((span) =>
          Scope.addFinalizerExit(scope, (exit) =>
            Effect.map(Clock.currentTimeNanos, (now) => {
              if (entry.firstByteMillis !== undefined) span.attribute("spegel.first_byte_ms", entry.firstByteMillis)
              span.attribute("spegel.bytes", entry.bytes)
              span.attribute("spegel.ended", entry.outcome)
              span.end(now, isMiss(exit) ? Exit.void : exit)
            }))
        ),
        Effect.asSome
      ),
    Effect.succeedNone
  )

/** Does `effect` as part of an attempt. */
export const within = <A, E, R>(
  span: Option.Option<Tracer.Span>,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  Option.match(span, {
    onNone: () => effect,
    onSome: (span) => Effect.provideService(effect, Tracer.ParentSpan, span)
  })

/** A request to the peer of the current attempt; gives the headers by which that peer's spans become part of the trace. */
export const asking = ({ method, url }: HttpRequest): Effect.Effect<Readonly<Record<string, string>>> =>
  whereTraced(
    () =>
      Effect.match(Effect.currentSpan, {
        onFailure: () => ({}),
        onSuccess: (span) => {
          span.attribute("http.request.method", method)
          span.attribute("url.path", url.split("?", 1)[0])
          return { traceparent: HttpTraceContext.toHeaders(span)["traceparent"] ?? "" }
        }
      }),
    Effect.succeed({})
  )

/** How it answered, and from which of its addresses. */
export const peerAnswered = ({ address, status }: PeerResponse): Effect.Effect<void> =>
  annotate(() => ({ "http.response.status_code": status, "network.peer.address": address }))

/** Checking `size` bytes, held or on their way. A part cannot be checked: it has no digest. */
export const verification =
  (size: number, whole: boolean) => <A, E extends { readonly _tag: string }, R>(effect: Effect.Effect<A, E, R>) =>
    whereRecorded(
      () =>
        Effect.useSpan(
          spans.verify,
          { attributes: { "spegel.bytes": size, "spegel.result": "incomplete" } },
          (span) =>
            effect.pipe(
              Effect.tap(() => Effect.sync(() => span.attribute("spegel.result", whole ? "right" : "not checked"))),
              Effect.tapError(({ _tag }) =>
                Effect.sync(() => {
                  if (_tag === "ContentCorrupted") span.attribute("spegel.result", "wrong")
                })
              )
            )
        ),
      effect
    )
