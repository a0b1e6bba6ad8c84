/** The HTTP handler for nodes that look for their first peer: `/id` describes this node as Go's `peer.AddrInfo` in JSON. */
import type { Handler } from "@spegel-ts/registry/HttpListener"
import * as PeerAddress from "@spegel-ts/router/PeerAddress"
import { Router } from "@spegel-ts/router/Router"
import { Effect } from "effect"

/** `routerPort` is the port on which peers reach this node. */
export const make = Effect.fnUntraced(function*(options: { readonly routerPort: number }) {
  const router = yield* Router
  const handler: Handler = Effect.fnUntraced(function*(request, response) {
    const path = (request.url ?? "").split("?", 1)[0]
    if (path !== "/id" || (request.method !== "GET" && request.method !== "HEAD")) {
      response.writeHead(404, { "content-type": "text/plain" }).end("not found; there is /id\n")
      return
    }
    const { addresses, id } = yield* router.self
    const self = { ID: id, Addrs: addresses.map((ip) => String(PeerAddress.ofSocket(ip, options.routerPort))) }
    response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify([self]))
  })
  return handler
})
