/**
 * Requests to a Kubernetes API server over `node:https`: one kept connection for requests, one a watch. The official client
 * would do this and much more, but takes as much memory as a third of this program may, and a new TLS connection a request.
 */
import { Data, Duration, Effect, type Scope, Stream } from "effect"
import { Agent as HttpAgent, type IncomingMessage, request as httpRequest } from "node:http"
import { Agent as HttpsAgent, request as httpsRequest } from "node:https"
import type { ClusterAccess, ClusterAccessInvalid, TlsMaterial } from "./ClusterAccess.ts"

/** No usable answer came: nothing listens, the connection broke, the deadline passed, the answer is too large. */
export class ApiUnreachable extends Data.TaggedError("ApiUnreachable")<{ readonly reason: string }> {
  override get message() {
    return this.reason
  }
}

export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | ReadonlyArray<string> | undefined>>
  readonly body: string
}

export interface ApiRequest {
  /** A PATCH is a merge patch (RFC 7386). */
  readonly method: "GET" | "PATCH" | "POST" | "PUT"
  /** With its query, as `/apis/coordination.k8s.io/v1/...`. */
  readonly path: string
  readonly body?: unknown
}

const maxBodyBytes = 1024 * 1024
/** A connection that is cut without a word is noticed by probes after this long in silence. */
const keepAliveMillis = 15_000

const reasonOf = (cause: unknown): string => {
  const { code, message } = cause as { readonly code?: unknown; readonly message?: unknown }
  return typeof code === "string" && !String(message).includes(code) ? `${String(message)} (${code})` : String(message)
}

const agentOf = ({ ca, cert, key, servername, verify }: TlsMaterial, secure: boolean) => {
  const pooled = { keepAlive: true, maxFreeSockets: 1, keepAliveMsecs: keepAliveMillis, scheduling: "lifo" } as const
  return secure
    ? new HttpsAgent({ ...pooled, ca, cert, key, servername, rejectUnauthorized: verify })
    : new HttpAgent(pooled)
}

/** The body, as it comes, cut at line ends. A line longer than a body may be is refused. */
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

const unreachable = (cause: unknown) => new ApiUnreachable({ reason: reasonOf(cause) })

/** A client whose connections close with the scope. */
export const make = Effect.fnUntraced(function*(access: ClusterAccess) {
  const secure = access.server.protocol === "https:"
  let agent: { readonly of: string; readonly agent: HttpAgent } | undefined
  yield* Effect.addFinalizer(() => Effect.sync(() => agent?.agent.destroy()))

  /** Certificates rotate: new ones need new connections. */
  const agentFor = (tls: TlsMaterial) => {
    const of = JSON.stringify(tls)
    if (agent?.of !== of) {
      agent?.agent.destroy()
      agent = { of, agent: agentOf(tls, secure) }
    }
    return agent.agent
  }

  /** Sends it, and succeeds with the head of the answer; what is open is closed with the scope. */
  const send = ({ body, method, path }: ApiRequest) =>
    Effect.flatMap(access.credentials, ({ authorization, tls }) =>
      Effect.acquireRelease(
        Effect.sync(() => {
          const payload = body === undefined ? undefined : JSON.stringify(body)
          const prefix = access.server.pathname.replace(/\/$/, "")
          const request = (secure ? httpsRequest : httpRequest)(new URL(prefix + path, access.server), {
            method,
            agent: agentFor(tls),
            headers: {
              accept: "application/json",
              "user-agent": "spegel-ts",
              ...(authorization === undefined ? {} : { authorization }),
              ...(payload === undefined
                ? {}
                : {
                  "content-type": method === "PATCH" ? "application/merge-patch+json" : "application/json",
                  "content-length": Buffer.byteLength(payload)
                })
            }
          })
          request.on("socket", (socket) => socket.setKeepAlive(true, keepAliveMillis))
          // Errors after the answer has begun are the body's.
          request.on("error", () => {})
          return { request, payload }
        }),
        ({ request }) => Effect.sync(() => request.destroy())
      )).pipe(Effect.flatMap(({ payload, request }) =>
        Effect.callback<IncomingMessage, ApiUnreachable>((resume) => {
          request.once("response", (response) => resume(Effect.succeed(response)))
          request.once("error", (error) => resume(Effect.fail(unreachable(error))))
          request.end(payload)
        })
      ))

  const within =
    (deadline: Duration.Duration) =>
    <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | ApiUnreachable, R> =>
      Effect.timeoutOrElse(effect, {
        duration: deadline,
        orElse: () => Effect.fail(new ApiUnreachable({ reason: `no answer within ${Duration.format(deadline)}` }))
      })

  const answer = (response: IncomingMessage): Effect.Effect<Answer, ApiUnreachable> =>
    Effect.map(Effect.tryPromise({ try: () => bodyOf(response), catch: unreachable }), (body) => ({
      status: response.statusCode ?? 0,
      headers: response.headers,
      body
    }))

  return {
    /** One request and its whole answer, within the deadline. */
    request: (
      request: ApiRequest,
      deadline: Duration.Duration
    ): Effect.Effect<Answer, ApiUnreachable | ClusterAccessInvalid> =>
      Effect.flatMap(send(request), answer).pipe(Effect.scoped, within(deadline)),
    /** The lines of an answer that goes on; the deadline is that of its head. An answer that is not 200 is told whole. */
    lines: (
      request: ApiRequest,
      deadline: Duration.Duration
    ): Effect.Effect<
      Answer | Stream.Stream<string, ApiUnreachable>,
      ApiUnreachable | ClusterAccessInvalid,
      Scope.Scope
    > =>
      Effect.flatMap(
        send(request),
        (response): Effect.Effect<Answer | Stream.Stream<string, ApiUnreachable>, ApiUnreachable> =>
          response.statusCode === 200
            ? Effect.succeed(Stream.fromAsyncIterable(linesOf(response), unreachable))
            : answer(response)
      ).pipe(within(deadline))
  }
})

export type ApiClient = Effect.Success<ReturnType<typeof make>>
