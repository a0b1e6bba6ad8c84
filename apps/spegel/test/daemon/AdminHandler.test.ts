import { assert, describe, it } from "@effect/vitest"
import * as PeerAuth from "@spegel-ts/cluster-key/PeerAuth"
import * as MemoryStore from "@spegel-ts/content/MemoryStore"
import * as HttpListener from "@spegel-ts/registry/HttpListener"
import { PullLog } from "@spegel-ts/registry/PullLog"
import { Registry } from "@spegel-ts/registry/Registry"
import { Router } from "@spegel-ts/router/Router"
import { ContainerdFaults } from "@spegel-ts/spegel/containerd/ContainerdFaults"
import * as AdminHandler from "@spegel-ts/spegel/daemon/AdminHandler"
import { StateTracker } from "@spegel-ts/state-tracker/StateTracker"
import { MetricsEndpoint } from "@spegel-ts/telemetry/MetricsEndpoint"
import { newRing } from "@spegel-ts/testing/ClusterKeys"
import { Transfer } from "@spegel-ts/transfer/Transfer"
import { Duration, Effect, Layer, Option } from "effect"
import { request } from "node:http"
import { networkInterfaces } from "node:os"

const right = "Bearer right"

const services = Layer.mergeAll(
  Layer.mock(Registry, {
    handler: () => undefined,
    accepts: (authorization): boolean => authorization === right,
    activity: Effect.succeed({ requests: [], downloads: [], circuits: [], paused: [] })
  }),
  MemoryStore.layer,
  Layer.mock(MetricsEndpoint, { contentType: "text/plain", render: Effect.succeed("a_metric 1") }),
  Layer.mock(StateTracker, { snapshot: Effect.succeed({ tags: new Map(), images: new Map(), digests: 0 }) }),
  Router.layerMemory({
    network: Router.memoryNetwork(),
    self: { id: "this", addresses: ["127.0.0.2"], servicePort: 5000 }
  }),
  PullLog.layer,
  ContainerdFaults.layer,
  Transfer.layerPortable
)

const ring = newRing()
const auth = (mode: PeerAuth.PeerAuthMode): Layer.Layer<never> =>
  mode === "off" ? Layer.empty : PeerAuth.layer({ mode, ring })

interface Asking {
  readonly host?: string
  readonly authorization?: string
  /** The address to ask, which is also the one that the connection comes from. */
  readonly address?: string
}

const start = (mode: PeerAuth.PeerAuthMode) =>
  Effect.gen(function*() {
    const context = yield* Layer.build(Layer.fresh(Layer.mergeAll(services, auth(mode))))
    const handler = yield* Effect.provideContext(AdminHandler.make({ debug: true, profile: false }), context)
    const { port } = yield* HttpListener.listen({ host: Option.none(), port: 0, handler, grace: Duration.zero })
    return (path: string, { address = "127.0.0.1", authorization, host = `localhost:${port}` }: Asking = {}) =>
      Effect.callback<{ readonly status: number; readonly headers: Record<string, unknown>; readonly body: string }>(
        (resume) => {
          const headers = { host, ...(authorization === undefined ? {} : { authorization }) }
          request({ host: address, port, path, headers, agent: false }, (response) => {
            let body = ""
            response.on("data", (chunk) => body += String(chunk)).on("end", () =>
              resume(Effect.succeed({ status: response.statusCode ?? 0, headers: response.headers, body })))
          }).end()
        }
      )
  })

/** An address of this host other than loopback; none in a sandbox without a network. */
const outside = Object.values(networkInterfaces()).flat().find((one) =>
  one?.internal === false && one.family === "IPv4"
)
  ?.address
const pages = [
  "/debug/web/",
  "/debug/web",
  "/debug/web/?image=nginx",
  "/debug/peers",
  "/debug/pulls",
  "/debug/events",
  "/debug/profile",
  "/debug/page.js",
  "/debug/lookup.json?image=nginx",
  ...["status", "pulls", "uploads", "peers", "requests", "images"].map((view) => `/debug/${view}.json`),
  "/debug/nothing"
]

describe("AdminHandler", () => {
  it.live("answers metrics to everybody, in every mode and under any name", () =>
    Effect.gen(function*() {
      for (const mode of ["require", "prefer", "off"] as const) {
        const ask = yield* start(mode)
        for (const asking of [{}, { host: "spegel.example" }, outside === undefined ? {} : { address: outside }]) {
          assert.deepInclude(yield* ask("/metrics", asking), { status: 200, body: "a_metric 1" })
        }
      }
    }))

  it.live("answers debug pages to this node, but not to a page that gave its own name this node's address", () =>
    Effect.gen(function*() {
      for (const mode of ["require", "prefer"] as const) {
        const ask = yield* start(mode)
        for (const host of ["localhost", "localhost:9090", "LOCALHOST", "127.0.0.1:8080", "10.0.0.7", "[::1]:9090"]) {
          assert.strictEqual((yield* ask("/debug/peers", { host })).status, 200, host)
        }
        for (
          const host of ["evil.example", "evil.example:9090", "localhost.evil.example", "127.0.0.1.evil.example"]
        ) {
          for (const path of pages) {
            const answer = yield* ask(path, { host })
            assert.strictEqual(answer.status, 403, `${host} ${path}`)
            assert.include(answer.body, "open them as localhost")
            assert.notProperty(answer.headers, "www-authenticate")
          }
        }
        // A page has no token to send.
        assert.strictEqual((yield* ask("/debug/peers", { host: "spegel.example", authorization: right })).status, 200)
      }
    }))

  it.live(`answers debug pages to others with a token or a password only${outside === undefined ? " (skipped)" : ""}`, () =>
    Effect.gen(function*() {
      if (outside === undefined) return
      for (const mode of ["require", "prefer"] as const) {
        const ask = yield* start(mode)
        for (const path of pages) {
          for (const authorization of [undefined, "Bearer wrong"]) {
            const asking = { address: outside, ...(authorization === undefined ? {} : { authorization }) }
            const answer = yield* ask(path, asking)
            assert.strictEqual(answer.status, 401, path)
            assert.include(answer.body, "kubectl port-forward")
            assert.match(String(answer.headers["www-authenticate"]), /^Basic /)
          }
        }
        assert.strictEqual((yield* ask("/debug/peers", { address: outside, authorization: right })).status, 200)
      }
    }))

  it.live("answers debug pages to everybody where nobody proves anything", () =>
    Effect.gen(function*() {
      const ask = yield* start("off")
      for (const asking of [{}, { host: "spegel.example" }, outside === undefined ? {} : { address: outside }]) {
        assert.strictEqual((yield* ask("/debug/peers", asking)).status, 200)
      }
    }))

  it.live("lets no script but its own run, and no other page show a page", () =>
    Effect.gen(function*() {
      for (const mode of ["require", "off"] as const) {
        const { body, headers } = yield* (yield* start(mode))("/debug/web/")
        assert.strictEqual(
          headers["content-security-policy"],
          "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; form-action 'self'; " +
            "base-uri 'none'; frame-ancestors 'none'"
        )
        assert.include(body, `(--peer-auth=${mode})`)
      }
    }))
})
