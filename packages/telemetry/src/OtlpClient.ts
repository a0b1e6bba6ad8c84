/** Posts bodies to a collector over HTTP, and says whether trying again may help. */
import { Data, Duration, Effect, Redacted, Schedule } from "effect"
import type { HttpBody } from "effect/http/HttpBody"
import * as http from "node:http"
import { promisify } from "node:util"
import * as zlib from "node:zlib"
import type { TraceExport } from "./OtelEnvironment.ts"

/** The collector did not take a body. */
export class PostFailed extends Data.TaggedError("PostFailed")<{
  readonly reason: string
  /** Whether the same body may be taken later, and how much later if the collector says so. */
  readonly transient: boolean
  readonly retryAfter: Duration.Duration | undefined
}> {
  override get message() {
    return this.reason
  }
}

export type Post = (body: HttpBody) => Effect.Effect<void, PostFailed>

/** Answers after which the OTLP specification wants the same body to be sent again. */
const transientStatuses = new Set([429, 502, 503, 504])
const maxRetryAfterSeconds = 30

const compress = promisify(zlib.gzip)

const failed = (reason: string, transient: boolean, retryAfter?: Duration.Duration) =>
  Effect.fail(new PostFailed({ reason, transient, retryAfter }))

/** Retries with growing pauses, or with those that the collector asks for, within `exportTimeout`. */
const schedule = Schedule.exponential("1 second", 1.5).pipe(
  Schedule.jittered,
  Schedule.setInputType<PostFailed>(),
  Schedule.modifyDelay(({ duration, input }) => Effect.succeed(input.retryAfter ?? duration)),
  Schedule.while(({ input }) => input.transient)
)

export interface PostOptions {
  readonly userAgent: string
  /** Runs when an attempt has failed that is made again, unless the collector has asked for that. */
  readonly onRetry: (error: PostFailed) => Effect.Effect<void>
}

/** TLS takes memory: it is loaded where it is spoken. */
export const make = (settings: TraceExport, { onRetry, userAgent }: PostOptions): Effect.Effect<Post> =>
  Effect.map(
    settings.url.protocol === "https:"
      ? Effect.promise(() => import("node:https").then(({ request }) => request))
      : Effect.succeed(http.request),
    (request) => {
      const { exportTimeout, gzip, headers, timeout, url } = settings
      const attempt = (body: Uint8Array, contentType: string) =>
        Effect.callback<void, PostFailed>((resume) => {
          const posted = request(url, {
            method: "POST",
            // Nothing stays open between two bodies.
            agent: false,
            headers: {
              "user-agent": userAgent,
              ...Redacted.value(headers),
              "content-type": contentType,
              "content-length": body.length,
              ...(gzip ? { "content-encoding": "gzip" } : {})
            }
          }, (response) => {
            const status = response.statusCode ?? 0
            const seconds = Math.min(Number(response.headers["retry-after"]), maxRetryAfterSeconds)
            response.resume().once("close", () =>
              resume(
                status >= 200 && status < 300
                  ? Effect.void
                  : failed(
                    `answered ${status}`,
                    transientStatuses.has(status),
                    seconds > 0 ? Duration.seconds(seconds) : undefined
                  )
              ))
          })
          posted.on("error", (error) => resume(failed(error.message, true))).end(body)
          return Effect.sync(() => posted.destroy())
        }).pipe(
          Effect.timeoutOrElse({ duration: timeout, orElse: () => failed(`no answer in ${timeout} ms`, true) })
        )

      return Effect.fnUntraced(
        function*(body) {
          // Both encoders give one.
          if (body._tag !== "Uint8Array") return
          const sent = gzip ? yield* Effect.promise(() => compress(body.body)) : body.body
          yield* attempt(sent, body.contentType).pipe(
            Effect.tapError((error) =>
              error.transient && error.retryAfter === undefined ? onRetry(error) : Effect.void
            ),
            Effect.retry(schedule)
          )
        },
        Effect.timeoutOrElse({
          duration: exportTimeout,
          orElse: () => failed(`not taken in ${exportTimeout} ms`, false)
        })
      )
    }
  )
