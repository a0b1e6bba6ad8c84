/** Requests to an API server over `node:https`: one kept connection for requests, and one for each watch. */
import { Data, Effect, type Scope } from "effect"
import { Agent as HttpAgent, type IncomingMessage, request as httpRequest } from "node:http"
import { Agent as HttpsAgent, request as httpsRequest } from "node:https"
import type { ApiRequest } from "../../ApiClient.ts"
import type { ClusterAccess, ClusterAccessInvalid, Credentials, TlsMaterial } from "../../ClusterAccess.ts"

/** The request could not be sent, or its answer did not begin or broke off. */
export class ConnectionFailed extends Data.TaggedError("ConnectionFailed")<{ readonly cause: unknown }> {}

/** A connection that is silent for this long is probed: it may have been cut without notice. */
const keepAliveMillis = 15_000

const agentOf = ({ ca, cert, key, servername, verify }: TlsMaterial, isSecure: boolean) => {
  const pooled = { keepAlive: true, maxFreeSockets: 1, keepAliveMsecs: keepAliveMillis, scheduling: "lifo" } as const
  return isSecure
    ? new HttpsAgent({ ...pooled, ca, cert, key, servername, rejectUnauthorized: verify })
    : new HttpAgent(pooled)
}

/** The agent for the certificates of this moment: they rotate, and new ones need new connections. */
const agents = (isSecure: boolean) =>
  Effect.gen(function*() {
    let current: { readonly of: string; readonly agent: HttpAgent } | undefined
    yield* Effect.addFinalizer(() => Effect.sync(() => current?.agent.destroy()))
    return (tls: TlsMaterial): HttpAgent => {
      const of = JSON.stringify(tls)
      if (current?.of !== of) {
        current?.agent.destroy()
        current = { of, agent: agentOf(tls, isSecure) }
      }
      return current.agent
    }
  })

const headersOf = (method: string, authorization: string | undefined, payload: string | undefined) => ({
  accept: "application/json",
  "user-agent": "spegel-ts",
  ...(authorization === undefined ? {} : { authorization }),
  ...(payload === undefined
    ? {}
    : {
      "content-type": method === "PATCH" ? "application/merge-patch+json" : "application/json",
      "content-length": Buffer.byteLength(payload)
    })
})

/** Connections to the server of `access`, which close with the scope. */
export const make = Effect.fnUntraced(function*({ credentials, server }: ClusterAccess) {
  const isSecure = server.protocol === "https:"
  const prefix = server.pathname.replace(/\/$/, "")
  const agentFor = yield* agents(isSecure)

  const open = ({ body, method, path }: ApiRequest, { authorization, tls }: Credentials) => {
    const payload = body === undefined ? undefined : JSON.stringify(body)
    const request = (isSecure ? httpsRequest : httpRequest)(new URL(prefix + path, server), {
      method,
      agent: agentFor(tls),
      headers: headersOf(method, authorization, payload)
    })
    request.on("socket", (socket) => socket.setKeepAlive(true, keepAliveMillis))
    // Errors after the answer has begun are the body's.
    request.on("error", () => {})
    return { request, payload }
  }

  /** Sends a request, and succeeds with the head of the answer. Closing the scope closes the exchange. */
  return Effect.fnUntraced(function*(
    request: ApiRequest
  ): Effect.fn.Return<IncomingMessage, ConnectionFailed | ClusterAccessInvalid, Scope.Scope> {
    const given = yield* credentials
    const { payload, request: sent } = yield* Effect.acquireRelease(
      Effect.sync(() => open(request, given)),
      ({ request }) => Effect.sync(() => request.destroy())
    )
    return yield* Effect.callback<IncomingMessage, ConnectionFailed>((resume) => {
      sent.once("response", (response) => resume(Effect.succeed(response)))
      sent.once("error", (cause) => resume(Effect.fail(new ConnectionFailed({ cause }))))
      sent.end(payload)
    })
  })
})
