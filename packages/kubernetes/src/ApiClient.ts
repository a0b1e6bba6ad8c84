/**
 * Requests to a Kubernetes API server. They share one connection, which is kept; each watch has another. Every request has a
 * deadline, and an answer is at most 1 MiB.
 *
 * docs/decisions/0005-kubernetes-client.md says why this is not the official client.
 */
import { Data, Duration, Effect, type Scope, Stream } from "effect"
import type { IncomingMessage } from "node:http"
import type { ClusterAccess, ClusterAccessInvalid } from "./ClusterAccess.ts"
import * as ApiConnection from "./internal/http/ApiConnection.ts"

/**
 * No usable answer came: nothing listens, the connection broke, the deadline passed, or the answer is too large. The server
 * may have carried out the request.
 */
export class ApiUnreachable extends Data.TaggedError("ApiUnreachable")<{ readonly reason: string }> {
  override get message() {
    return this.reason
  }
}

/** A whole answer. Any status is an answer: it is for the caller to judge. */
export interface Answer {
  readonly status: number
  /** Keyed by lower-case name. */
  readonly headers: Readonly<Record<string, string | ReadonlyArray<string> | undefined>>
  /** As received. It is JSON, except for some errors of proxies. */
  readonly body: string
}

/** How much of an unexpected answer is quoted, in characters. */
const maxQuoted = 300

/** Says that an answer has another status than expected. `to` names the request. */
export const unexpected = ({ body, status }: Pick<Answer, "body" | "status">, to?: string): string =>
  `the API server answered ${status}${to === undefined ? "" : ` to ${to}`}: ${body.slice(0, maxQuoted)}`

/** A request of the API: https://kubernetes.io/docs/reference/using-api/api-concepts/ */
export interface ApiRequest {
  /** A PATCH is a merge patch (RFC 7386). */
  readonly method: "DELETE" | "GET" | "PATCH" | "POST" | "PUT"
  /** With its query, as `/apis/coordination.k8s.io/v1/...`. */
  readonly path: string
  /** Sent as JSON. */
  readonly body?: unknown
}

/** A client of one API server. */
export interface ApiClient {
  /** Sends a request and reads its whole answer, within `deadline`. */
  readonly request: (
    request: ApiRequest,
    deadline: Duration.Duration
  ) => Effect.Effect<Answer, ApiUnreachable | ClusterAccessInvalid>
  /**
   * Sends a request whose answer is a stream of lines, such as a watch. Succeeds once the head of the answer has come, and
   * only that has a deadline. The stream ends when the server ends it; the connection closes with the scope. An answer whose
   * status is not 200 is read whole instead.
   */
  readonly lines: (
    request: ApiRequest,
    deadline: Duration.Duration
  ) => Effect.Effect<
    Answer | Stream.Stream<string, ApiUnreachable>,
    ApiUnreachable | ClusterAccessInvalid,
    Scope.Scope
  >
}

const maxBodyBytes = 1024 * 1024

const reasonOf = (cause: unknown): string => {
  const { code, message } = cause as { readonly code?: unknown; readonly message?: unknown }
  return typeof code === "string" && !String(message).includes(code) ? `${String(message)} (${code})` : String(message)
}

const unreachable = (cause: unknown) => new ApiUnreachable({ reason: reasonOf(cause) })

/** The body as it comes, cut at line ends. It fails if a line is longer than a whole body may be. */
async function* linesOf(response: IncomingMessage): AsyncGenerator<string> {
  response.setEncoding("utf8")
  let rest = ""
  for await (const chunk of response as AsyncIterable<string>) {
    const lines = (rest + chunk).split("\n")
    rest = lines.pop() ?? ""
    if (rest.length > maxBodyBytes) throw new Error(`the answer has a line of more than ${maxBodyBytes} bytes`)
    yield* lines
  }
  if (rest !== "") yield rest
}

const bodyOf = async (response: IncomingMessage): Promise<string> => {
  const chunks: Array<Buffer> = []
  let bytes = 0
  for await (const chunk of response as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes > maxBodyBytes) throw new Error(`the answer is larger than ${maxBodyBytes} bytes`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString()
}

const answerOf = (response: IncomingMessage): Effect.Effect<Answer, ApiUnreachable> =>
  Effect.map(Effect.tryPromise({ try: () => bodyOf(response), catch: unreachable }), (body) => ({
    status: response.statusCode ?? 0,
    headers: response.headers,
    body
  }))

const within =
  (deadline: Duration.Duration) => <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | ApiUnreachable, R> =>
    Effect.timeoutOrElse(effect, {
      duration: deadline,
      orElse: () => Effect.fail(new ApiUnreachable({ reason: `no answer within ${Duration.format(deadline)}` }))
    })

/** A client whose connections close with the scope. It connects at its first request. */
export const make = (access: ClusterAccess): Effect.Effect<ApiClient, never, Scope.Scope> =>
  Effect.map(ApiConnection.make(access), (connect) => {
    const send = (request: ApiRequest) =>
      Effect.catchTag(connect(request), "ConnectionFailed", ({ cause }) => Effect.fail(unreachable(cause)))
    return {
      request: (request, deadline) => Effect.flatMap(send(request), answerOf).pipe(Effect.scoped, within(deadline)),
      lines: (request, deadline) =>
        Effect.flatMap(
          send(request),
          (response): ReturnType<ApiClient["lines"]> =>
            response.statusCode === 200
              ? Effect.succeed(Stream.fromAsyncIterable(linesOf(response), unreachable))
              : answerOf(response)
        ).pipe(within(deadline))
    }
  })
