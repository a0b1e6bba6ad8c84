import { assert, describe, it } from "@effect/vitest"
import * as Digest from "@spegel-ts/oci/Digest"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import { type MemoryNetwork, Router } from "@spegel-ts/router/Router"
import { eventually } from "@spegel-ts/testing/Eventually"
import { Effect, Exit, References } from "effect"
import * as Tracer from "effect/Tracer"
import { createServer, type IncomingMessage, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import * as RecordingTracer from "../RecordingTracer.ts"
import { startNode } from "../TestNode.ts"

const blob = Buffer.from("a small layer ".repeat(100))
const digest = Digest.ofBytes(blob)
/** Larger than what is verified before it is answered. */
const large = Buffer.alloc(6 * 1024 * 1024, "spegel")
const largeDigest = Digest.ofBytes(large)

const get = (url: string, headers: Record<string, string> = {}) =>
  Effect.promise((signal) =>
    fetch(url, { signal, headers }).then(
      async (response) => ({
        status: response.status,
        size: (await response.arrayBuffer().catch(() => new ArrayBuffer())).byteLength
      })
    )
  )

const blobUrl = (url: string, of: string = digest) => `${url}/v2/team/app/blobs/${of}?ns=registry.example`

/** A peer that says it holds what it is asked for, and answers as `behave` does. */
const startPeer = Effect.fnUntraced(function*(
  network: MemoryNetwork,
  address: string,
  behave: (response: ServerResponse, request: IncomingMessage) => void
) {
  const requests: Array<IncomingMessage> = []
  const server = yield* Effect.acquireRelease(
    Effect.callback<ReturnType<typeof createServer>>((resume) => {
      const server = createServer((request, response) => {
        requests.push(request)
        behave(response, request)
      }).listen(0, address, () => resume(Effect.succeed(server)))
    }),
    (server) =>
      Effect.sync(() => {
        server.close()
        server.closeAllConnections()
      })
  )
  const id = `peer-${address}`
  const { port } = server.address() as AddressInfo
  // Nobody listens on the first.
  network.members.set(id, { id, addresses: ["127.0.0.49", address], servicePort: port })
  for (const key of [digest, largeDigest].map(ContentKey.make)) {
    network.providers.set(key, new Set([...(network.providers.get(key) ?? []), id]))
  }
  return { requests }
})

const whole = (bytes: Uint8Array) => (response: ServerResponse) => {
  response.writeHead(200, { "content-length": bytes.length }).end(bytes)
}

/** Runs a request through a node with a tracer of its own, and gives the spans of the request. */
const traceOf = Effect.fnUntraced(function*(
  network: MemoryNetwork,
  request: (url: string, spans: ReadonlyArray<Tracer.NativeSpan>) => Effect.Effect<unknown>
) {
  const { spans, tracer } = RecordingTracer.make()
  yield* Effect.scoped(Effect.gen(function*() {
    const node = yield* startNode(network, "127.0.0.41", { verify: "stream" })
    spans.length = 0
    yield* request(node.url, spans)
  })).pipe(Effect.provideService(Tracer.Tracer, tracer))
  assert.isTrue(spans.every(({ status }) => status._tag === "Ended"))
  return spans
})

const named = (spans: ReadonlyArray<Tracer.NativeSpan>, name: string) => spans.filter((span) => span.name === name)
const facts = (span: Tracer.NativeSpan | undefined) => Object.fromEntries(span?.attributes ?? [])
const failed = (span: Tracer.NativeSpan | undefined) =>
  span?.status._tag === "Ended" && Exit.isFailure(span.status.exit)

describe("PullSpans", () => {
  it.live("tells an embedding program's tracer about a request", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      yield* startPeer(network, "127.0.0.42", (response) => response.writeHead(404, { "content-length": 0 }).end())
      yield* startPeer(network, "127.0.0.43", whole(blob))
      const spans = yield* traceOf(network, (url) => get(blobUrl(url)))
      const [request, ...parts] = spans as [Tracer.NativeSpan, ...Array<Tracer.NativeSpan>]
      assert.strictEqual(request.name, "GET /v2/{name}/blobs/{digest}")
      assert.strictEqual(request.kind, "server")
      assert.deepInclude(facts(request), {
        "http.response.body.size": blob.length,
        "http.response.status_code": 200,
        "spegel.content": digest,
        "spegel.outcome": "served",
        "spegel.source": "peer-127.0.0.43"
      })
      assert.deepStrictEqual(parts.map(({ name }) => name).toSorted(), [
        "ask peer",
        "ask peer",
        "local lookup",
        "parse",
        "peer lookup",
        "verify"
      ])
      assert.isTrue(
        parts.every(({ parent }) => parent._tag === "Some" && parent.value.spanId === request.spanId)
      )
      const [refused, served] = named(spans, "ask peer")
      // A peer that no longer holds it is a miss, as it is here.
      assert.isFalse(failed(refused))
      assert.deepInclude(facts(refused), {
        "http.response.status_code": 404,
        "spegel.bytes": 0,
        "spegel.ended": "answered 404"
      })
      assert.isFalse(failed(served))
      assert.deepInclude(facts(served), {
        "network.peer.address": "127.0.0.43",
        "server.address": "127.0.0.49",
        "spegel.bytes": blob.length,
        "spegel.ended": "served"
      })
      assert.deepInclude(facts(named(spans, "peer lookup")[0]), { "spegel.peers.found": 2 })
    }))

  it.live("shows a miss, which is not an error", () =>
    Effect.gen(function*() {
      const spans = yield* traceOf(Router.memoryNetwork(), (url) => get(blobUrl(url)))
      assert.deepInclude(facts(spans[0]), {
        "http.response.status_code": 404,
        "spegel.outcome": "refused",
        "spegel.source": "none"
      })
      assert.deepInclude(facts(named(spans, "peer lookup")[0]), { "spegel.peers.found": 0 })
      assert.isFalse(spans.some(failed))
      assert.isFalse(spans.some(({ attributes }) => attributes.has("error.type")))
    }))

  it.live("shows wrong bytes, streamed and held", () =>
    Effect.gen(function*() {
      for (const right of [large, blob]) {
        const network = Router.memoryNetwork()
        const wrong = Buffer.from(right)
        wrong[100] = 0
        yield* startPeer(network, "127.0.0.42", whole(wrong))
        const spans = yield* traceOf(network, (url) => Effect.exit(get(blobUrl(url, Digest.ofBytes(right)))))
        const [verification] = named(spans, "verify")
        assert.deepInclude(facts(verification), { "spegel.bytes": right.length, "spegel.result": "wrong" })
        assert.isTrue(failed(verification))
        assert.isTrue(failed(named(spans, "ask peer")[0]))
        assert.deepInclude(facts(named(spans, "ask peer")[0]), {
          "spegel.bytes": right.length,
          "spegel.ended": `sent wrong bytes for ${Digest.ofBytes(right)}`
        })
      }
    }))

  it.live("shows peers that fail", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      yield* startPeer(network, "127.0.0.42", (response) => response.writeHead(500, { "content-length": 0 }).end())
      yield* startPeer(network, "127.0.0.43", (response) => response.destroy())
      const spans = yield* traceOf(network, (url) => get(blobUrl(url)))
      const attempts = named(spans, "ask peer")
      assert.strictEqual(attempts.length, 2)
      assert.isTrue(attempts.every(failed))
      assert.deepInclude(facts(spans[0]), { "http.response.status_code": 404 })
      assert.isFalse(failed(spans[0]))
      assert.notProperty(facts(spans[0]), "error.type")
    }))

  it.live("shows a body that no peer could finish", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      yield* startPeer(network, "127.0.0.42", (response) => {
        response.writeHead(200, { "content-length": large.length }).write(large.subarray(0, 1000))
        setImmediate(() => response.destroy())
      })
      const spans = yield* traceOf(network, (url) => get(blobUrl(url, largeDigest)))
      assert.deepInclude(facts(spans[0]), { "error.type": "interrupted", "http.response.status_code": 200 })
    }))

  it.live("shows a client that goes away", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const half = large.length / 2
      yield* startPeer(network, "127.0.0.42", (response) => {
        response.writeHead(200, { "content-length": large.length }).write(large.subarray(0, half))
      })
      const spans = yield* traceOf(network, (url, begun) =>
        Effect.promise(async () => {
          const response = await fetch(blobUrl(url, largeDigest))
          await response.body?.cancel()
        }).pipe(Effect.andThen(eventually(() => begun.every(({ status }) => status._tag === "Ended")))))
      // containerd leaves early where it fetches a layer in parts.
      assert.notProperty(facts(spans[0]), "error.type")
      assert.deepInclude(facts(spans[0]), {
        "http.response.status_code": 200,
        "spegel.outcome": "interrupted"
      })
      assert.deepInclude(facts(named(spans, "ask peer")[0]), { "spegel.ended": "the client went away" })
    }))

  it.live("continues a valid traceparent, and passes it to the peer", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const { requests } = yield* startPeer(network, "127.0.0.42", whole(blob))
      const traceId = "4bf92f3577b34da6a3ce929d0e0e4736"
      const valid = `00-${traceId}-00f067aa0ba902b7`
      for (const sampled of ["01", "00"]) {
        const [request, ...rest] = yield* traceOf(network, (url) =>
          get(blobUrl(url), { traceparent: `${valid}-${sampled}` }))
        assert.deepInclude(request, { traceId, sampled: sampled === "01" })
        const [attempt] = named(rest, "ask peer")
        assert.strictEqual(requests.at(-1)?.headers["traceparent"], `00-${traceId}-${attempt?.spanId}-${sampled}`)
        assert.strictEqual(requests.at(-1)?.headers["x-spegel-mirrored"], "true")
      }
      const malformed = [
        "",
        "00",
        `${valid}-01-02`,
        `${valid}-1`,
        `${valid.toUpperCase()}-01`,
        `ff-${traceId}-00f067aa0ba902b7-01`,
        `00-${"0".repeat(32)}-00f067aa0ba902b7-01`,
        `00-${traceId}-${"0".repeat(16)}-01`,
        `${valid}-01${"-a".repeat(4000)}`
      ]
      for (const traceparent of malformed) {
        const [request] = yield* traceOf(network, (url) =>
          get(blobUrl(url), { traceparent }))
        assert.notStrictEqual(request?.traceId, traceId, traceparent)
        assert.strictEqual(request?.parent._tag, "None", traceparent)
      }
    }))

  it.live("makes no span for a probe, nor when tracing is off", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      assert.deepStrictEqual(yield* traceOf(network, (url) => get(`${url}/readyz`)), [])
      const { requests } = yield* startPeer(network, "127.0.0.42", whole(blob))
      const spans = yield* traceOf(network, (url) => get(blobUrl(url))).pipe(
        Effect.provideService(References.TracerEnabled, false)
      )
      assert.deepStrictEqual(spans, [])
      assert.deepStrictEqual(requests.map(({ headers }) => headers["traceparent"]), [undefined])
    }))
})
