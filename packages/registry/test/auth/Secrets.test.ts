import { assert, describe, it } from "@effect/vitest"
import * as ClientToken from "@spegel-ts/cluster-key/ClientToken"
import * as Digest from "@spegel-ts/oci/Digest"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import { Router } from "@spegel-ts/router/Router"
import { ringOf } from "@spegel-ts/testing/ClusterKeys"
import { eventually } from "@spegel-ts/testing/Eventually"
import { Effect, Logger, Metric, Option, Redacted, References } from "effect"
import * as Tracer from "effect/Tracer"
import { inspect } from "node:util"
import { get, ns, startFalsePeer } from "../mirror/FalsePeer.ts"
import * as RecordingTracer from "../RecordingTracer.ts"
import { startNode } from "../TestNode.ts"
import { auth, foreignLine, foreignRing, newLine, oldLine, ring, signed } from "./Keys.ts"

const layer = Buffer.from("a layer ".repeat(100))
const digest = Digest.ofBytes(layer)
const other = Digest.ofBytes(Buffer.from("other"))
const target = (of: string) => `/v2/team/app/blobs/${of}?ns=${ns}`

/** Everything that a program could write down of a run. */
const recording = () => {
  const lines: Array<string> = []
  const logger = Logger.make(({ cause, fiber, message }) => {
    lines.push(inspect([message, cause, fiber.getRef(References.CurrentLogAnnotations)], { depth: 8 }))
  })
  return { lines, logger: Logger.layer([logger]), ...RecordingTracer.make() }
}

describe("secrets", () => {
  it.live("are in no log line, span, metric, error or log of pulls", () =>
    Effect.gen(function*() {
      const { lines, logger, spans, tracer } = recording()
      const token = ClientToken.make(ring, "here") ?? ""
      const foreign = ClientToken.make(foreignRing, "here") ?? ""
      const basic = (pair: string) => `Basic ${Buffer.from(pair).toString("base64")}`
      const authorizations = [
        `Bearer ${token}`,
        `Bearer ${foreign}`,
        basic("user:s3cret"),
        basic("pod:pull-s3cret"),
        basic(`x:${token}`)
      ]
      const said: Array<string> = []
      const sent: Array<string> = []

      yield* Effect.gen(function*() {
        const network = Router.memoryNetwork()
        const options = {
          auth: auth("require", ringOf(newLine, oldLine)),
          nodeName: "here",
          basicAuth: Option.some({ username: "user", password: Redacted.make("s3cret") })
        }
        const holder = yield* startNode(network, "127.0.27.2", { ...options, proved: true })
        yield* holder.content.put(layer)
        yield* holder.router.advertise([ContentKey.make(digest)])
        // It breaks off, and gives no proof.
        const broken = yield* startFalsePeer(network, "127.0.27.4", (socket) =>
          socket.end("HTTP/1.1 500 no\r\n\r\n"), other)
        const node = yield* startNode(network, "127.0.27.3", options)
        const wrong = signed({ receiver: "another", target: target(digest) }).headers
        const unknown = signed({ receiver: node.id, target: target(digest), ring: foreignRing }).headers
        const late = signed({ receiver: node.id, target: target(digest), ahead: 86_400_000 }).headers
        sent.push(wrong["x-spegel-auth"], unknown["x-spegel-auth"], late["x-spegel-auth"])
        const asked = [...authorizations.map((authorization) => ({ authorization })), wrong, unknown, late]
        for (const path of [target(digest), target(other), "/v2/", `/v2/team/app/tags/list?ns=${ns}`]) {
          for (const headers of asked) {
            said.push(String((yield* get(node.url + path, { headers })).body))
          }
        }
        yield* eventually(() =>
          broken.requests.length > 0
        )
        for (const request of broken.requests) {
          sent.push(/^x-spegel-auth: (.+)\r$/im.exec(request)?.[1] ?? "")
        }
        said.push(inspect([yield* node.log.recent, yield* holder.log.recent], { depth: 8 }))
        said.push(inspect(node, { depth: 3 }))
      }).pipe(
        Effect.provide(logger),
        Effect.provideService(References.MinimumLogLevel, "Trace"),
        Effect.provideService(Tracer.Tracer, tracer)
      )
      said.push(inspect(yield* Metric.snapshot, { depth: 6 }))
      said.push(
        ...lines,
        ...spans.map(({ attributes, events, links, name }) =>
          inspect([name, attributes, events, links], { depth: 6 })
        )
      )

      assert.isAbove(lines.length, 10)
      assert.isAbove(spans.length, 10)
      assert.isAbove(sent.length, 3)
      const signatures = [token, foreign, ...sent].map((text) => /[\w-]{43}$/.exec(text)?.[0] ?? "none")
      assert.notInclude(signatures, "none")
      const secrets = [
        newLine,
        oldLine,
        foreignLine,
        "s3cret",
        ...authorizations.map((text) => text.split(" ")[1] ?? ""),
        ...signatures
      ]
      for (const text of said) {
        for (const secret of secrets) assert.isFalse(text.includes(secret), text.slice(0, 2000))
      }
    }))
})
