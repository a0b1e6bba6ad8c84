import { assert, describe, it } from "@effect/vitest"
import * as OciLayoutWriter from "@spegel-ts/content/OciLayoutWriter"
import * as FaultPeer from "@spegel-ts/faults/FaultPeer"
import { none } from "@spegel-ts/faults/FaultServer"
import * as Reference from "@spegel-ts/oci/Reference"
import * as PullSpans from "@spegel-ts/registry/PullSpans"
import * as PullClient from "@spegel-ts/testing/content/PullClient"
import * as RandomImage from "@spegel-ts/testing/content/RandomImage"
import { freePort } from "@spegel-ts/testing/network/FreePort"
import * as MirrorPorts from "@spegel-ts/testing/node/MirrorPorts"
import * as SpegelProcess from "@spegel-ts/testing/node/SpegelProcess"
import * as Collector from "@spegel-ts/testing/telemetry/Collector"
import type { ReceivedSpan } from "@spegel-ts/testing/telemetry/ReceivedSpan"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Effect, Schedule } from "effect"

const reference = { registry: "registry.example", repository: "team/app", tag: "v1" }
const layerSize = 6 * 1024 * 1024
const server = 2
const client = 3

type Span = ReceivedSpan

/** A daemon over an image layout, on an address of its own; it exports when it ends. */
const startDaemon = Effect.fnUntraced(function*(options: {
  readonly name: string
  readonly host: string
  readonly layout: string
  readonly bootstrap: string | undefined
  readonly collector: string
  /** Of OTLP; by default that of the specification. */
  readonly protocol?: string
}) {
  const { host, layout } = options
  const ports = yield* MirrorPorts.free
  const process = yield* SpegelProcess.start([
    "registry",
    ...MirrorPorts.flags(host, ports),
    `--data-dir=${yield* temporary}`,
    `--store=oci-layout:${layout}`,
    // On a busy machine nothing is late.
    "--mirror-resolve-timeout=5s",
    "--mirror-first-byte-timeout=30s",
    "--mirror-answer-timeout=30s",
    "--mirror-stall-timeout=30s",
    "--mirror-min-speed=0",
    ...(options.bootstrap === undefined
      ? []
      : ["--bootstrap-kind=static", `--static-bootstrap-peers=${options.bootstrap}`])
  ], {
    OTEL_EXPORTER_OTLP_ENDPOINT: options.collector,
    OTEL_EXPORTER_OTLP_PROTOCOL: options.protocol ?? "",
    OTEL_RESOURCE_ATTRIBUTES: `service.instance.id=${options.name}`,
    // Spans arrive only because they are sent at the end.
    OTEL_BSP_SCHEDULE_DELAY: "600000"
  })
  return {
    host,
    port: ports.registry,
    url: `http://${host}:${ports.registry}`,
    router: `${host}:${ports.router}`,
    admin: `http://${host}:${ports.metrics}`,
    stop: Effect.andThen(Effect.sync(() => process.child.kill("SIGTERM")), process.finished)
  }
})

const emptyLayout = Effect.tap(temporary, (root) => OciLayoutWriter.make({ root }))

const startHolder = Effect.fnUntraced(function*(collector: string, layers: number, protocol?: string) {
  const layout = yield* temporary
  const image = yield* RandomImage.write({
    writer: yield* OciLayoutWriter.make({ root: layout }),
    reference,
    layerSizes: Array.from({ length: layers }, () => layerSize)
  })
  const node = yield* startDaemon({
    name: "holder",
    host: "127.0.0.31",
    layout,
    bootstrap: undefined,
    collector,
    ...(protocol === undefined ? {} : { protocol })
  })
  return { image, layout, node }
})

/** Asks for something until it can be had: what was just advertised has to get around. */
const untilServed = (url: string) =>
  Effect.tryPromise((signal) => fetch(url, { method: "HEAD", signal })).pipe(
    Effect.filterOrFail(({ ok }) => ok, () => "not there yet" as const),
    Effect.retry({ schedule: Schedule.spaced("50 millis"), times: 400 })
  )

/** Bytes of bodies that were asked for by GET, as a node's metrics tell them. */
const bodyBytes = /^http_response_size_bytes_sum\{(?=.*method="GET")(?=.*handler="(?:blob|manifest)").*\} (\S+)$/gm

const childrenOf = (spans: ReadonlyArray<Span>, parent: Span) =>
  spans.filter(({ parentSpanId, traceId }) => parentSpanId === parent.spanId && traceId === parent.traceId)
const attribute = (span: Span | undefined, name: string) => span?.attributes[name]
const sum = (numbers: ReadonlyArray<unknown>) => numbers.reduce<number>((sum, number) => sum + Number(number), 0)

describe("traces", { timeout: 120_000 }, () => {
  it.live("tell of one pull across two nodes: who was asked, what came, and that it was right", () =>
    Effect.gen(function*() {
      const collector = yield* Collector.start()
      const { image, node: holder } = yield* startHolder(collector.url, 2)
      yield* SpegelProcess.untilReady(holder.url)
      const layout = yield* emptyLayout
      const asker = yield* startDaemon({
        name: "asker",
        host: "127.0.0.32",
        layout,
        bootstrap: holder.router,
        collector: collector.url
      })
      yield* SpegelProcess.untilReady(asker.url)
      for (const { descriptor: { digest }, kind } of image.objects) {
        const path = kind === "manifest" ? "manifests/v1" : `blobs/${digest}`
        yield* untilServed(`${asker.url}/v2/team/app/${path}?ns=registry.example`)
      }
      const pulled = yield* PullClient.pull({
        writer: yield* OciLayoutWriter.make({ root: layout }),
        mirror: asker.url,
        upstream: "http://127.0.0.1:1",
        reference,
        tag: "v1",
        onProgress: () => Effect.void
      })
      assert.deepStrictEqual(new Set(pulled.map(({ host }) => host)), new Set(["mirror"]))
      // The holder counts after the last byte: these requests, and those before them.
      let lately = -1
      const counted = yield* Effect.promise(() => fetch(`${holder.admin}/metrics`).then((response) => response.text()))
        .pipe(
          Effect.map((text) => sum([...text.matchAll(bodyBytes)].map(([, bytes]) => bytes))),
          Effect.delay("300 millis"),
          Effect.repeat({
            until: (bytes) => {
              const settled = bytes === lately
              lately = bytes
              return settled
            }
          })
        )
      assert.strictEqual(collector.spans.length, 0)
      assert.strictEqual((yield* asker.stop).code, 0)
      assert.strictEqual((yield* holder.stop).code, 0)

      const { spans } = collector
      assert.deepStrictEqual(
        spans.filter(({ kind, name }) => kind !== server && !PullSpans.names.has(name)).map(({ name }) => name),
        []
      )
      const of = (name: string) =>
        spans.filter(({ kind, resource }) => kind === server && resource["service.instance.id"] === name)
      // Each object of the pull is a trace.
      const gets = (name: string) => of(name).filter((span) => attribute(span, "http.request.method") === "GET")
      const requests = gets("asker")
      assert.strictEqual(requests.length, image.objects.length)
      const served = requests.map((request) => {
        assert.strictEqual(request.parentSpanId, "")
        assert.match(request.name, /^GET \/v2\/\{name\}\/(manifests\/\{reference\}|blobs\/\{digest\})$/)
        const children = childrenOf(spans, request)
        const only = (name: string) => {
          const [first, ...more] = children.filter((span) => span.name === name)
          assert.deepStrictEqual([more.length, first === undefined], [0, false], `${name} of ${request.name}`)
          return first as Span
        }
        only("parse")
        assert.strictEqual(attribute(children.find(({ name }) => name === "local lookup"), "spegel.hit"), false)
        assert.strictEqual(attribute(only("peer lookup"), "spegel.peers.found"), 1)
        const attempt = only("ask peer")
        // A manifest is verified before the peer that gave it has won.
        const asked = childrenOf(spans, attempt)
        const [verification, ...others] = [...children, ...asked].filter(({ name }) => name === "verify")
        const [remote, ...none] = asked.filter(({ name }) => name !== "verify")
        assert.deepStrictEqual([others.length, none.length], [0, 0])
        const bytes = attribute(request, "http.response.body.size")
        assert.deepInclude(attempt.attributes, {
          "http.response.status_code": 200,
          "server.address": holder.host,
          "server.port": holder.port,
          "spegel.bytes": bytes,
          "spegel.ended": "served",
          "spegel.start": 0
        })
        assert.deepInclude(verification?.attributes ?? {}, {
          "spegel.bytes": bytes,
          // containerd verifies larger blobs.
          "spegel.result": Number(bytes) > 4 * 1024 * 1024 ? "not checked" : "right"
        })
        assert.deepInclude(remote?.attributes, {
          "http.response.body.size": bytes,
          "http.response.status_code": 200,
          "spegel.asked_by_peer": true,
          "spegel.source": "local"
        })
        assert.deepInclude(request.attributes, {
          "http.response.status_code": 200,
          "spegel.outcome": "served",
          "spegel.registry": "registry.example",
          "spegel.source": attribute(attempt, "spegel.peer.id")
        })
        const found = childrenOf(spans, remote as Span).find(({ name }) => name === "local lookup")
        assert.isTrue(attribute(found, "spegel.hit") ?? attribute(remote, "spegel.held_in_memory"))
        // Another process has another clock, and may notice later that all bytes have arrived.
        for (const span of children) {
          assert.isTrue(span.start >= request.start && span.end <= request.end, `${span.name} is within its request`)
        }
        assert.isFalse([...children, remote].some((span) => span?.status === "error"))
        return { content: attribute(request, "spegel.content"), bytes }
      })
      assert.deepStrictEqual(
        new Map(served.map(({ bytes, content }) => [content, bytes])),
        new Map<unknown, unknown>(image.objects.map(({ descriptor: { digest, size } }) => [digest, size]))
      )
      assert.strictEqual(counted, sum(gets("holder").map((span) => attribute(span, "http.response.body.size"))))
    }))

  it.live("tell of a peer that ends in mid-body, and of the one that goes on: their bytes add up", () =>
    Effect.gen(function*() {
      const collector = yield* Collector.start()
      const { image, layout, node: holder } = yield* startHolder(collector.url, 1)
      yield* SpegelProcess.untilReady(holder.url)
      const objects = image.objects.map(({ descriptor }) => descriptor)
      const layer = objects.at(-1)
      const [faultRouter, faultRegistry] = yield* Effect.all([freePort, freePort])
      const fault = yield* FaultPeer.start({
        host: "127.0.0.33",
        routerPort: faultRouter,
        registryPort: faultRegistry,
        bootstrap: [holder.router],
        layout,
        name: Reference.name(reference),
        objects,
        misbehaviour: { fault: "FIN mid-body", kind: "GET large layer" },
        happenings: none
      })
      const asker = yield* startDaemon({
        name: "asker",
        host: "127.0.0.32",
        layout: yield* emptyLayout,
        bootstrap: holder.router,
        collector: collector.url
      })
      yield* SpegelProcess.untilReady(asker.url)
      yield* fault.untilFound(1)
      yield* untilServed(`${asker.url}/v2/team/app/manifests/v1?ns=registry.example`)

      /** One pull in a trace of its own: what the fault peer sent for it, and whether it was left in mid-body. */
      let count = 0
      const pull = Effect.gen(function*() {
        const parent = { traceId: String(++count).padStart(32, "0"), spanId: "00f067aa0ba902b7" }
        const before = yield* fault.counts
        const size = yield* Effect.promise(() =>
          fetch(`${asker.url}/v2/team/app/blobs/${layer?.digest}?ns=registry.example`, {
            headers: { traceparent: `00-${parent.traceId}-${parent.spanId}-01` }
          }).then((response) => response.arrayBuffer()).then(({ byteLength }) => byteLength)
        )
        const after = yield* fault.counts
        const [{ attempts }] = yield* Effect.promise(() =>
          fetch(`${asker.admin}/debug/pulls`).then((response) => response.json())
        ) as Effect.Effect<[{ readonly attempts: ReadonlyArray<{ readonly outcome: string }> }]>
        const broken = attempts.some(({ outcome }) => outcome.includes("closed the connection"))
        return { parent, size, broken, faultBytes: after.bytes - before.bytes }
      })
      // Which of the two is asked first is drawn, but for a peer that answered later than the other one: it is left alone for
      // ten seconds, and longer where it is late again when it is asked beside the other.
      const pulls = Effect.repeat(Effect.delay(pull, "50 millis"), { until: ({ broken }) => broken, times: 40 })
      const { broken: met, faultBytes, parent, size } = yield* Effect.repeat(pulls, {
        schedule: Schedule.spaced("11 seconds"),
        until: ({ broken }) => broken,
        times: 3
      })
      assert.isTrue(met)
      assert.strictEqual(size, layer?.size)
      assert.isAbove(faultBytes, 0)
      assert.strictEqual((yield* asker.stop).code, 0)
      assert.strictEqual((yield* holder.stop).code, 0)

      const spans = collector.spans.filter(({ traceId }) => traceId === parent.traceId)
      // The client's trace goes on.
      const [request] = spans.filter(({ parentSpanId }) => parentSpanId === parent.spanId) as [Span]
      assert.deepInclude(request, { kind: server, status: "unset" })
      const attempts = childrenOf(spans, request).filter(({ kind }) => kind === client)
      const bytesOf = (span: Span) => Number(attribute(span, "spegel.bytes"))
      const [broken, served, ...idle] = attempts.toSorted((a, b) =>
        bytesOf(b) - bytesOf(a) || (a.start < b.start ? -1 : 1)
      ) as [Span, Span]
      assert.deepInclude(broken.attributes, {
        "error.type": "PeerDisconnected",
        "http.response.status_code": 200,
        "server.address": "127.0.0.33",
        "server.port": faultRegistry,
        "spegel.bytes": faultBytes,
        "spegel.start": 0
      })
      assert.deepInclude(served.attributes, {
        "http.response.status_code": 206,
        "server.port": holder.port,
        "spegel.start": faultBytes,
        "spegel.bytes": Number(layer?.size) - faultBytes,
        "spegel.ended": "served"
      })
      // Asked beside one whose first byte was late, perhaps; nothing was taken from them.
      assert.isTrue(idle.every((span) => bytesOf(span) === 0))
      const [remote] = childrenOf(spans, served)
      assert.deepInclude(remote?.attributes, {
        "http.response.status_code": 206,
        "http.response.body.size": Number(layer?.size) - faultBytes
      })
      assert.deepInclude(childrenOf(spans, request).find(({ name }) => name === "verify")?.attributes, {
        "spegel.bytes": layer?.size,
        "spegel.result": "not checked"
      })
      assert.match(String(attribute(request, "spegel.peers.left")), /\b127\.0\.0\.33:\d+: closed the connection/)
    }))

  it.live("are exported by each protocol: the bundle has what it takes", () =>
    Effect.gen(function*() {
      const http = yield* Collector.start()
      const grpc = yield* Collector.startGrpc
      for (
        const [protocol, { spans, url }] of [["http/json", http], ["http/protobuf", http], ["grpc", grpc]] as const
      ) {
        spans.length = 0
        const { image, node } = yield* startHolder(url, 1, protocol)
        yield* SpegelProcess.untilReady(node.url)
        yield* untilServed(
          `${node.url}/v2/team/app/blobs/${image.objects.at(-1)?.descriptor.digest}?ns=registry.example`
        )
        const { code, stderr } = yield* node.stop
        assert.strictEqual(code, 0)
        assert.notInclude(stderr, "trace export failed")
        assert.deepStrictEqual(
          spans.filter(({ kind }) => kind === server).map(({ resource, status }) => [resource["service.name"], status]),
          [["spegel", "unset"]],
          protocol
        )
      }
    }))

  it.live("do not harm a pull where the collector is not there", () =>
    Effect.gen(function*() {
      const nowhere = `http://127.0.0.1:${yield* freePort}`
      const { image, node } = yield* startHolder(nowhere, 1)
      yield* SpegelProcess.untilReady(node.url)
      const digest = image.objects.at(-1)?.descriptor.digest
      const response = yield* Effect.promise(() => fetch(`${node.url}/v2/team/app/blobs/${digest}?ns=registry.example`))
      assert.strictEqual(
        (yield* Effect.promise(() => response.arrayBuffer())).byteLength,
        image.objects.at(-1)?.descriptor.size
      )
      const { code, stderr } = yield* node.stop
      assert.strictEqual(code, 0)
      const told = stderr.split("\n").filter((line) => line.includes("trace export failed"))
      assert.strictEqual(told.length, 1, stderr)
      assert.include(told[0], "connect ECONNREFUSED")
    }))
})
