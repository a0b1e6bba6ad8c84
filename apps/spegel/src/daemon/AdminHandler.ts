/**
 * The HTTP handler for operators: `/metrics`, and `/debug/` if it is enabled. It has a port of its own, so that a firewall can
 * close it without closing the registry.
 */
import { PeerAuth } from "@spegel-ts/cluster-key/PeerAuth"
import type { Handler } from "@spegel-ts/registry/HttpListener"
import { printed, PullLog } from "@spegel-ts/registry/PullLog"
import { Registry } from "@spegel-ts/registry/Registry"
import { Router } from "@spegel-ts/router/Router"
import { StateTracker } from "@spegel-ts/state-tracker/StateTracker"
import { MetricsEndpoint } from "@spegel-ts/telemetry/MetricsEndpoint"
import { Transfer } from "@spegel-ts/transfer/Transfer"
import { Effect } from "effect"
import { ContainerdFaults } from "../containerd/ContainerdFaults.ts"
import { version } from "../Version.ts"
import * as DebugAccess from "./DebugAccess.ts"
import * as DebugPage from "./DebugPage.ts"

/**
 * `debug` adds the debug pages, which `DebugAccess` protects. All other paths are answered 404, with a list of those that exist.
 */
export const make = Effect.fnUntraced(function*(options: { readonly debug: boolean }) {
  const metrics = yield* MetricsEndpoint
  const router = yield* Router
  const tracker = yield* StateTracker
  const pullLog = yield* PullLog
  const faults = yield* ContainerdFaults
  const { plane } = yield* Transfer
  const { accepts } = yield* Registry
  const { mode } = yield* PeerAuth

  const json = (value: unknown) => ({ type: "application/json", body: JSON.stringify(value) })
  const pages = new Map<string, Effect.Effect<{ readonly type: string; readonly body: string }>>([
    ["/metrics", Effect.map(metrics.render, (body) => ({ type: metrics.contentType, body }))]
  ])
  if (options.debug) {
    pages.set(
      "/debug/web/",
      Effect.gen(function*() {
        const body = DebugPage.render({
          version,
          plane: yield* plane,
          standing: yield* router.standing,
          peerAuth: mode,
          faults: [...(yield* faults.known).values()],
          self: yield* router.self,
          peers: yield* router.peers,
          snapshot: yield* tracker.snapshot,
          pulls: yield* pullLog.recent
        })
        return { type: "text/html; charset=utf-8", body }
      })
    )
    pages.set(
      "/debug/peers",
      Effect.map(Effect.all([router.self, router.peers]), ([self, peers]) => json([{ ...self, self: true }, ...peers]))
    )
    pages.set("/debug/pulls", Effect.map(pullLog.recent, (events) => json(events.map(printed))))
  }

  const handler: Handler = Effect.fnUntraced(function*(request, response) {
    const path = (request.url ?? "").split("?", 1)[0] ?? ""
    const refusal = mode === "off" || !path.startsWith("/debug") ? undefined : DebugAccess.refusal(request, accepts)
    if (refusal !== undefined) {
      response.writeHead(refusal.status, { "content-type": "text/plain", ...refusal.headers }).end(
        `${refusal.reason}\n`
      )
      return
    }
    if (path === "/debug/web") {
      response.writeHead(301, { location: "/debug/web/" }).end()
      return
    }
    const page = request.method === "GET" || request.method === "HEAD" ? pages.get(path) : undefined
    if (page === undefined) {
      response.writeHead(404, { "content-type": "text/plain" }).end(
        `not found; there is ${[...pages.keys()].join(", ")}\n`
      )
      return
    }
    const { body, type } = yield* page
    // The page shows names that come from the network: no script may run, and no other page may show this one.
    response.writeHead(200, {
      "content-type": type,
      "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
      "x-content-type-options": "nosniff"
    }).end(body)
  })
  return handler
})
