/** A registry that demands a user name and password, or tokens that it gives for these, as private ones do. */
import { Effect } from "effect"
import { randomBytes } from "node:crypto"
import { createServer, type IncomingMessage, request, type ServerResponse } from "node:http"
import * as LocalServer from "../network/LocalServer.ts"
import type { PullSecret } from "./CriClient.ts"

/** What it demands. */
export const schemes = ["Basic", "Bearer"] as const

export type Scheme = typeof schemes[number]

/** Starts it before the open registry at `upstream`, a host with a port. */
export const start = Effect.fnUntraced(function*(scheme: Scheme, secret: PullSecret, upstream: string) {
  const state = {
    /** Requests that it answered with content, each as `METHOD path`. */
    served: [] as Array<string>,
    /** How often it demanded credentials. */
    challenges: 0,
    /** All the `Authorization` headers that came. */
    authorizations: new Set<string>()
  }
  const tokens = new Set<string>()
  const password = `Basic ${Buffer.from(`${secret.username}:${secret.password}`).toString("base64")}`
  const isRight = (authorization: string) =>
    scheme === "Basic" ? authorization === password : tokens.has(authorization.slice("Bearer ".length))

  const giveToken = (authorization: string, response: ServerResponse) => {
    if (authorization !== password) return response.writeHead(401).end()
    const token = `upstream-token-${randomBytes(16).toString("hex")}`
    tokens.add(token)
    return response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ token }))
  }

  const forward = (incoming: IncomingMessage, response: ServerResponse) => {
    state.served.push(`${incoming.method} ${incoming.url}`)
    const { authorization: _, ...headers } = incoming.headers
    const forwarded = request(`http://${upstream}${incoming.url}`, { method: incoming.method, headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers)
      answer.pipe(response)
    })
    forwarded.on("error", () => response.destroy())
    return incoming.pipe(forwarded)
  }

  const server = createServer((incoming, response) => {
    const { authorization = "" } = incoming.headers
    if (authorization !== "") state.authorizations.add(authorization)
    // Clients that try to POST for a token go on with GET.
    if (incoming.url?.startsWith("/token") === true) {
      return incoming.method === "GET" ? giveToken(authorization, response) : response.writeHead(404).end()
    }
    if (isRight(authorization)) return forward(incoming, response)
    state.challenges++
    const challenge = scheme === "Basic"
      ? `Basic realm="private"`
      : `Bearer realm="http://${incoming.headers.host}/token",service="private",scope="repository:team/app:pull"`
    return response.writeHead(401, { "www-authenticate": challenge, "content-type": "application/json" })
      .end(`{"errors":[{"code":"UNAUTHORIZED"}]}`)
  })
  const host = `127.0.0.1:${yield* LocalServer.listen(server)}`
  return {
    scheme,
    host,
    state,
    /** The tokens that it gave. */
    tokens: (): ReadonlyArray<string> => [...tokens],
    /** Forgets the requests so far, but not the tokens. */
    clear: () => {
      state.served.length = 0
      state.challenges = 0
      state.authorizations.clear()
    }
  }
})

export type GuardedRegistry = Effect.Success<ReturnType<typeof start>>
