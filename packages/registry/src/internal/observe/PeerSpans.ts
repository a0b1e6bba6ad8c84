/** The spans of a request that peers are asked for. */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import type { HttpRequest } from "@spegel-ts/oci/DistributionRequest"
import type { Peer } from "@spegel-ts/router/Peer"
import type { PeerResponse } from "@spegel-ts/transfer/PeerTransport"
import { Clock, Effect, Exit, Option, Scope, Stream } from "effect"
import * as HttpTraceContext from "effect/http/HttpTraceContext"
import * as Tracer from "effect/Tracer"
import { isMiss } from "../../MirrorError.ts"
import * as Outcome from "../../Outcome.ts"
import { spans } from "../../PullSpans.ts"
import type { AttemptEntry } from "./PullRecord.ts"
import { annotate, whereRecorded, whereTraced } from "./Recording.ts"

/** The lookup of peers by the router, as long as the stream is read. */
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

/** The attempt to get content from one peer, from the first byte sent to the last one taken: as long as `scope` is open. */
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
              span.attribute("spegel.ended", Outcome.print(entry.outcome))
              span.end(now, Option.exists(Exit.findErrorOption(exit), isMiss) ? Exit.void : exit)
            }))
        ),
        Effect.asSome
      ),
    Effect.succeedNone
  )

/** Runs `effect` as part of an attempt. */
export const within = <A, E, R>(
  span: Option.Option<Tracer.Span>,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  Option.match(span, {
    onNone: () => effect,
    onSome: (span) => Effect.provideService(effect, Tracer.ParentSpan, span)
  })

/** Describes the request of the current attempt; returns the headers that make the peer's spans part of this trace. */
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

/** The peer's response to the current attempt. */
export const peerAnswered = ({ address, status }: PeerResponse): Effect.Effect<void> =>
  annotate(() => ({ "http.response.status_code": status, "network.peer.address": address }))

/** The check of `size` bytes. A part cannot be checked, since it has no digest. */
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
