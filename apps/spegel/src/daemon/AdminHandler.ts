/**
 * The HTTP handler for operators: `/metrics`, and `/debug/` if it is enabled. It has a port of its own, so that a firewall can
 * close it without closing the registry.
 */
import { PeerAuth } from "@spegel-ts/cluster-key/PeerAuth"
import type { Handler } from "@spegel-ts/registry/HttpListener"
import { Registry } from "@spegel-ts/registry/Registry"
import { MetricsEndpoint } from "@spegel-ts/telemetry/MetricsEndpoint"
import { Effect } from "effect"
import type { IncomingMessage, ServerResponse } from "node:http"
import * as DebugAccess from "./DebugAccess.ts"
import * as DebugRoutes from "./DebugRoutes.ts"

export interface AdminOptions {
  /** Adds the debug pages, which `DebugAccess` protects. */
  readonly debug: boolean
  /** Adds CPU profiles to them. */
  readonly profile: boolean
}

const eventsPath = "/debug/events"

/**
 * The pages show names that come from the network: only the page's own script runs, nothing is loaded from elsewhere, and no other page
 * may show this one.
 */
const guards = {
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; form-action 'self'; " +
    "base-uri 'none'; frame-ancestors 'none'",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff"
}

/** Whether a browser says that a page of another site made it ask. */
const isForeign = ({ headers }: IncomingMessage): boolean =>
  !["same-origin", "none"].includes(headers["sec-fetch-site"] ?? "none")

const refuse = (response: ServerResponse, status: number, reason: string, headers = {}): void => {
  response.writeHead(status, { "content-type": "text/plain", ...headers }).end(`${reason}\n`)
}

/** All paths that it does not know are answered 404, with a list of those that exist. Its background work ends with the scope. */
export const make = Effect.fnUntraced(function*(options: AdminOptions) {
  const metrics = yield* MetricsEndpoint
  const { accepts } = yield* Registry
  const { mode } = yield* PeerAuth
  const debug = options.debug ? yield* DebugRoutes.make(options) : undefined
  const routes = new Map<string, DebugRoutes.Route>([
    [
      "/metrics",
      () => Effect.map(metrics.render, (body) => ({ status: 200, type: metrics.contentType, body }))
    ],
    ...debug?.routes ?? []
  ])

  const handler: Handler = Effect.fnUntraced(function*(request, response) {
    const [path = "", query = ""] = (request.url ?? "").split("?", 2)
    const refusal = mode === "off" || !path.startsWith("/debug") ? undefined : DebugAccess.refusal(request, accepts)
    if (refusal !== undefined) return refuse(response, refusal.status, refusal.reason, refusal.headers)
    if (path === "/debug/web") return void response.writeHead(301, { location: "/debug/web/" }).end()
    if (path === eventsPath && debug !== undefined && request.method === "GET") {
      if (!(yield* debug.events(response, guards))) refuse(response, 503, "too many pages are open")
      return
    }
    const route = request.method === "GET" || request.method === "HEAD" ? routes.get(path) : undefined
    if (route === undefined) return refuse(response, 404, `not found; there is ${[...routes.keys()].join(", ")}`)
    const port = request.socket.localPort ?? 0
    const { body, status, type } = yield* route({
      query: new URLSearchParams(query),
      port,
      isForeign: isForeign(request)
    })
    response.writeHead(status, { ...guards, "content-type": type, "cache-control": "no-store" }).end(body)
  })
  return handler
})
