import { assert, describe, it } from "@effect/vitest"
import * as Tracing from "@spegel-ts/telemetry/Tracing"
import { eventually } from "@spegel-ts/testing/Eventually"
import * as Certificates from "@spegel-ts/testing/kubernetes/Certificates"
import * as Collector from "@spegel-ts/testing/telemetry/Collector"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Data, Duration, Effect, Exit, Layer, Logger, Metric, References } from "effect"
import * as Tracer from "effect/Tracer"
import { readFileSync } from "node:fs"

class Broken extends Data.TaggedError("Broken")<{ readonly reason: string }> {
  override get message() {
    return `broken: ${this.reason}`
  }
}

/** Runs `program` with tracing as the environment says; gives what was logged. */
const traced = Effect.fnUntraced(function*(
  environment: Tracing.TracingOptions["environment"],
  program: Effect.Effect<unknown>,
  flushTimeout: Duration.Input = "30 seconds",
  spanNames?: ReadonlySet<string>
) {
  const logs: Array<string> = []
  const tracing = Tracing.layer({
    environment,
    attributes: { "host.name": "node-1" },
    version: "1.2.3",
    flushTimeout: Duration.fromInputUnsafe(flushTimeout),
    ...(spanNames === undefined ? {} : { spanNames })
  })
  yield* Effect.scoped(program).pipe(
    Effect.provide(
      Layer.provideMerge(tracing, Logger.layer([Logger.make(({ message }) => logs.push(String(message)))]))
    )
  )
  return logs
})

const request = (name: string, options?: Tracer.SpanOptions) => <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.withSpan(effect, name, { root: true, kind: "server", ...options })

const counted = (id: string) =>
  Effect.map(
    Metric.snapshot,
    (metrics) =>
      metrics.flatMap((metric) =>
        metric.id === id && metric.type === "Counter" ? [Number(metric.state.count)] : []
      )[0] ??
        0
  )
const droppedSpans = counted("spegel_trace_spans_dropped_total")
const failures = counted("spegel_background_failures_total")

describe("Tracing", () => {
  for (const protocol of ["http/protobuf", "http/json", "grpc"]) {
    it.live(`exports requests with their parts as ${protocol}`, () =>
      Effect.gen(function*() {
        const collector = yield* Collector.start()
        const grpc = yield* Collector.startGrpc
        const { spans, url } = protocol === "grpc" ? grpc : collector
        const remote = Tracer.externalSpan({ traceId: "0af7651916cd43dd8448eb211c80319c", spanId: "b7ad6b7169203331" })
        const logs = yield* traced(
          {
            OTEL_EXPORTER_OTLP_ENDPOINT: url,
            OTEL_EXPORTER_OTLP_PROTOCOL: protocol,
            OTEL_EXPORTER_OTLP_HEADERS: "x-key=secret",
            OTEL_SERVICE_NAME: "mirror"
          },
          Effect.annotateCurrentSpan({
            text: "x".repeat(2000),
            yes: true,
            bytes: 2 ** 40,
            ratio: 0.25,
            list: ["a", "b"]
          })
            .pipe(
              Effect.andThen(
                new Broken({ reason: "it is" }).pipe(Effect.withSpan("ask", { kind: "client" }), Effect.ignore)
              ),
              Effect.andThen(Effect.interrupt.pipe(Effect.withSpan("late"), Effect.exit)),
              Effect.andThen(Effect.annotateCurrentSpan("error.type", "503").pipe(Effect.withSpan("refused"))),
              request("GET blob", { root: false, parent: remote })
            )
        )
        assert.deepStrictEqual(logs, ["exporting traces"])
        if (protocol === "grpc") assert.deepStrictEqual(grpc.metadata.map((metadata) => metadata["x-key"]), ["secret"])
        else {
          assert.deepStrictEqual(
            collector.requests.map(({ headers, method, url }) => [method, url, headers["x-key"]]),
            [["POST", "/v1/traces", "secret"]]
          )
        }
        const [ask, late, refused, blob] = spans
        assert.strictEqual(spans.length, 4)
        assert.deepInclude(blob, {
          name: "GET blob",
          kind: 2,
          traceId: remote.traceId,
          parentSpanId: remote.spanId,
          status: "unset",
          attributes: {
            text: "x".repeat(1024),
            yes: true,
            bytes: 2 ** 40,
            ratio: 0.25,
            list: ["a", "b"]
          }
        })
        const { resource } = blob ?? {}
        assert.deepInclude(resource, { "service.name": "mirror", "service.version": "1.2.3", "host.name": "node-1" })
        assert.deepInclude(ask, {
          name: "ask",
          kind: 3,
          traceId: remote.traceId,
          parentSpanId: blob?.spanId ?? "",
          status: "error",
          message: "broken: it is",
          attributes: { "error.type": "Broken" }
        })
        const parentSpanId = blob?.spanId ?? ""
        assert.deepInclude(late, { name: "late", parentSpanId, status: "unset", attributes: {} })
        assert.deepInclude(refused, { name: "refused", status: "error", attributes: { "error.type": "503" } })
        assert.isTrue(ask !== undefined && blob !== undefined && blob.start <= ask.start && ask.end <= blob.end)
      }))
  }

  it.live("speaks TLS with the certificates that are named, and tells of a collector that shows another", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const [own, other] = yield* Effect.all([
        Certificates.authority(directory),
        Effect.flatMap(temporary, Certificates.authority)
      ])
      const [server, client] = yield* Effect.all([own.certificate("server"), own.certificate("client")])
      const collector = yield* Collector.start({
        tls: { cert: readFileSync(server.cert), key: readFileSync(server.key), ca: readFileSync(own.ca) }
      })
      const exporting = (authority: string) =>
        traced({
          OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: `${collector.url}/in`,
          OTEL_EXPORTER_OTLP_CERTIFICATE: authority,
          OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE: client.cert,
          OTEL_EXPORTER_OTLP_CLIENT_KEY: client.key
        }, Effect.void.pipe(request("one")))
      const before = yield* droppedSpans
      const logs = yield* exporting(other.ca)
      assert.match(logs[1] ?? "", /^trace export failed: .*certificate/)
      assert.strictEqual(yield* droppedSpans, before + 1)
      assert.deepStrictEqual(yield* exporting(own.ca), ["exporting traces"])
      assert.deepStrictEqual(collector.requests.map(({ url }) => url), ["/in"])
      assert.strictEqual(collector.spans.length, 1)
    }))

  it.live("describes the resource as the variables say", () =>
    Effect.gen(function*() {
      const collector = yield* Collector.start()
      const resourceWith = Effect.fnUntraced(function*(environment: Tracing.TracingOptions["environment"]) {
        yield* traced({ OTEL_EXPORTER_OTLP_ENDPOINT: collector.url, ...environment }, Effect.void.pipe(request("one")))
        return collector.spans.at(-1)?.resource
      })
      assert.deepInclude(yield* resourceWith({}), { "service.name": "spegel", "host.name": "node-1" })
      const given = { OTEL_RESOURCE_ATTRIBUTES: "service.name=mirror,k8s.node.name=n%2C1,host.name=other" }
      assert.deepInclude(yield* resourceWith(given), {
        "service.name": "mirror",
        "k8s.node.name": "n,1",
        "host.name": "other"
      })
      const detected = yield* resourceWith({
        ...given,
        OTEL_SERVICE_NAME: "spegel-2",
        OTEL_NODE_RESOURCE_DETECTORS: "env,process"
      })
      assert.deepInclude(detected, { "service.name": "spegel-2", "process.pid": process.pid })
    }))

  it.live("decides by the sampler that the variables name, at the root of each trace", () =>
    Effect.gen(function*() {
      const collector = yield* Collector.start()
      const after = (sampled: boolean) =>
        Tracer.externalSpan({ traceId: "a".repeat(32), spanId: "b".repeat(16), sampled })
      const recorded = Effect.fnUntraced(function*(sampler: string, ratio?: string) {
        const before = collector.spans.length
        yield* traced(
          {
            OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
            OTEL_TRACES_SAMPLER: sampler,
            ...(ratio === undefined ? {} : { OTEL_TRACES_SAMPLER_ARG: ratio })
          },
          Effect.forEach([["root"], ["after unsampled", false], ["after sampled", true]] as const, ([name, sampled]) =>
            Effect.void.pipe(
              Effect.withSpan("part"),
              request(name, sampled === undefined ? {} : { root: false, parent: after(sampled) })
            ))
        )
        const names = collector.spans.slice(before).map(({ name }) =>
          name
        )
        // A trace is recorded whole or not at all.
        assert.strictEqual(names.filter((name) => name === "part").length, names.length / 2)
        return names.filter((name) => name !== "part")
      })
      const all = ["root", "after unsampled", "after sampled"]
      assert.deepStrictEqual(yield* recorded("parentbased_always_on"), ["root", "after sampled"])
      assert.deepStrictEqual(yield* recorded("parentbased_traceidratio"), ["root", "after sampled"])
      assert.deepStrictEqual(yield* recorded("parentbased_traceidratio", "0"), ["after sampled"])
      assert.deepStrictEqual(yield* recorded("parentbased_always_off"), ["after sampled"])
      assert.deepStrictEqual(yield* recorded("always_on"), all)
      assert.deepStrictEqual(yield* recorded("always_off"), [])
      assert.deepStrictEqual(yield* recorded("traceidratio", "1"), all)
      assert.deepStrictEqual(yield* recorded("traceidratio", "0"), [])
    }))

  it.live("passes over spans that nobody named, and keeps what is below them in its place", () =>
    Effect.gen(function*() {
      const collector = yield* Collector.start()
      const inner = Effect.fn("Store.open")(() => Effect.withSpan(Effect.void, "read"))
      const failing = Effect.fn("Store.resolve")(() => Effect.fail(new Broken({ reason: "absent" })))
      yield* traced(
        { OTEL_EXPORTER_OTLP_ENDPOINT: collector.url },
        inner().pipe(
          Effect.withSpan("lookup"),
          Effect.andThen(Effect.ignore(failing())),
          request("GET blob")
        ),
        "30 seconds",
        new Set(["lookup", "read"])
      )
      const [read, lookup, blob, ...others] = collector.spans
      assert.deepStrictEqual(others, [])
      assert.deepInclude(blob, { name: "GET blob", parentSpanId: "", status: "unset" })
      assert.deepInclude(lookup, { name: "lookup", parentSpanId: blob?.spanId ?? "", traceId: blob?.traceId ?? "" })
      assert.deepInclude(read, { name: "read", parentSpanId: lookup?.spanId ?? "", traceId: blob?.traceId ?? "" })
    }))

  it.live("exports nothing of what the program does by itself, though a span of another tracer is around it", () =>
    Effect.gen(function*() {
      const collector = yield* Collector.start()
      // The tracer is loaded by a program that has begun a span already.
      yield* traced(
        { OTEL_EXPORTER_OTLP_ENDPOINT: collector.url },
        Effect.withSpan(Effect.void, "lookup").pipe(Effect.andThen(request("GET blob")(Effect.void)))
      ).pipe(Effect.withSpan("run"))
      assert.deepStrictEqual(collector.spans.map(({ name }) => name), ["GET blob"])
    }))

  it.live("makes no span where no collector is named", () =>
    traced(
      {},
      Effect.gen(function*() {
        assert.isFalse(yield* References.TracerEnabled)
        assert.strictEqual(yield* Tracer.Tracer, Tracer.nativeTracer)
      })
    ))

  it.live("records only what belongs to a request, and only what is sampled", () =>
    Effect.gen(function*() {
      const collector = yield* Collector.start()
      const unsampled = Tracer.externalSpan({ traceId: "a".repeat(32), spanId: "b".repeat(16), sampled: false })
      yield* traced(
        { OTEL_EXPORTER_OTLP_ENDPOINT: collector.url },
        Effect.void.pipe(
          Effect.withSpan("part"),
          request("of a trace that is not recorded", { root: false, parent: unsampled }),
          Effect.andThen(Effect.void.pipe(request("recorded"))),
          Effect.withSpan("part"),
          Effect.withSpan("upkeep")
        )
      )
      assert.deepStrictEqual(collector.spans.map(({ name, parentSpanId }) => [name, parentSpanId]), [["recorded", ""]])
    }))

  it.live("sends a batch when it is full, compressed if asked for", () =>
    Effect.gen(function*() {
      const collector = yield* Collector.start()
      yield* traced(
        {
          OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
          OTEL_EXPORTER_OTLP_COMPRESSION: "gzip",
          OTEL_BSP_MAX_EXPORT_BATCH_SIZE: "10",
          OTEL_BSP_SCHEDULE_DELAY: "600000"
        },
        Effect.gen(function*() {
          yield* Effect.repeat(Effect.void.pipe(request("one")), { times: 12 })
          yield* eventually(() => collector.spans.length > 0)
          assert.strictEqual(collector.spans.length, 10)
        })
      )
      assert.strictEqual(collector.spans.length, 13)
      assert.deepStrictEqual(collector.requests.map(({ headers }) => headers["content-encoding"]), ["gzip", "gzip"])
    }))

  it.live("sends what there is when its time has come", () =>
    Effect.gen(function*() {
      const collector = yield* Collector.start()
      yield* traced(
        { OTEL_EXPORTER_OTLP_ENDPOINT: collector.url, OTEL_BSP_SCHEDULE_DELAY: "50" },
        Effect.gen(function*() {
          for (const spans of [1, 2]) {
            yield* Effect.void.pipe(request("one"))
            yield* eventually(() => collector.spans.length === spans)
          }
        })
      )
      assert.strictEqual(collector.requests.length, 2)
    }))

  it.live("sends again what a busy collector puts off, and gives up what it refuses", () =>
    Effect.gen(function*() {
      const collector = yield* Collector.start()
      const answers = [{ status: 503, headers: { "retry-after": "0.05" } }, { status: 200 }, { status: 400 }, {
        status: 302
      }]
      collector.behaviour.answer = () => answers.shift() ?? { status: 200 }
      const before = yield* droppedSpans
      const logs = yield* traced(
        { OTEL_EXPORTER_OTLP_ENDPOINT: collector.url, OTEL_BSP_SCHEDULE_DELAY: "20" },
        Effect.gen(function*() {
          for (
            const [name, requests] of [["put off", 2], ["refused", 3], ["sent elsewhere", 4], ["taken", 5]] as const
          ) {
            yield* Effect.void.pipe(request(name))
            yield* eventually(() => collector.requests.length === requests)
          }
        })
      )
      assert.deepStrictEqual(collector.spans.map(({ name }) => name), ["put off", "taken"])
      assert.strictEqual((yield* droppedSpans) - before, 2)
      // Told of once, not for each; a collector that asks for patience has not failed.
      assert.deepStrictEqual(logs.slice(1), [
        `trace export failed: 1 spans were dropped: ${collector.url}: answered 400`,
        "trace export works again"
      ])
    }))

  it.live("never waits for a collector that hangs: what does not fit is dropped, counted and told of", () =>
    Effect.gen(function*() {
      const collector = yield* Collector.start()
      collector.behaviour.answer = () => undefined
      const before = yield* droppedSpans
      const logs = yield* traced(
        {
          OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
          OTEL_EXPORTER_OTLP_HEADERS: "authorization=secret",
          OTEL_BSP_MAX_EXPORT_BATCH_SIZE: "10",
          OTEL_BSP_MAX_QUEUE_SIZE: "100",
          OTEL_EXPORTER_OTLP_TIMEOUT: "300"
        },
        Effect.gen(function*() {
          yield* Effect.repeat(Effect.void.pipe(request("one")), { times: 999 })
          yield* eventually(() => collector.requests.length >= 1)
          collector.behaviour.answer = () => ({ status: 200 })
          yield* eventually(() => collector.spans.length > 0)
        })
      )
      const dropped = (yield* droppedSpans) - before
      assert.strictEqual(collector.spans.length + dropped, 1000)
      assert.isAtMost(collector.spans.length, 100)
      assert.match(logs[1] ?? "", /^trace export failed: .*http:\/\/127\.0\.0\.1:\d+/)
      assert.notInclude(logs.join(), "secret")
    }))

  it.live("tells of a collector that is away once, when it first fails", () =>
    Effect.gen(function*() {
      const url = yield* Effect.scoped(Effect.map(Collector.start(), ({ url }) => url))
      const before = [yield* droppedSpans, yield* failures] as const
      const logs = yield* traced(
        { OTEL_EXPORTER_OTLP_ENDPOINT: url, OTEL_BSP_SCHEDULE_DELAY: "20" },
        Effect.gen(function*() {
          yield* Effect.void.pipe(request("one"))
          yield* eventually(Effect.map(failures, (count) => count > before[1] + 1))
          assert.strictEqual(yield* droppedSpans, before[0])
        }),
        "50 millis"
      )
      assert.strictEqual(yield* droppedSpans, before[0] + 1)
      assert.strictEqual(logs.length, 2, logs.join("\n"))
      assert.include(logs[1], `trace export failed: ${url}: connect ECONNREFUSED`)
    }))

  it.live("tells of a gRPC collector that is away once, and gives up what it did not take", () =>
    Effect.gen(function*() {
      const { url } = yield* Effect.scoped(Collector.startGrpc)
      const before = [yield* droppedSpans, yield* failures] as const
      const logs = yield* traced(
        { OTEL_EXPORTER_OTLP_ENDPOINT: url, OTEL_EXPORTER_OTLP_PROTOCOL: "grpc", OTEL_BSP_SCHEDULE_DELAY: "20" },
        Effect.forEach([1, 2], (count) =>
          Effect.void.pipe(
            request("one"),
            Effect.andThen(eventually(Effect.map(failures, (failed) => failed >= before[1] + count)))
          ))
      )
      assert.strictEqual(yield* droppedSpans, before[0] + 2)
      assert.strictEqual(logs.length, 2, logs.join("\n"))
      assert.match(logs[1] ?? "", /^trace export failed: 1 spans were dropped: .*UNAVAILABLE/)
    }))

  it.live("sends the rest when it is closed, and leaves what cannot be sent in time", () =>
    Effect.gen(function*() {
      const collector = yield* Collector.start()
      yield* traced({ OTEL_EXPORTER_OTLP_ENDPOINT: collector.url }, Effect.void.pipe(request("last")))
      assert.deepStrictEqual(collector.spans.map(({ name }) => name), ["last"])

      collector.behaviour.answer = () => undefined
      const before = yield* droppedSpans
      const closed = yield* traced(
        { OTEL_EXPORTER_OTLP_ENDPOINT: collector.url },
        Effect.void.pipe(request("lost")),
        "100 millis"
      ).pipe(Effect.timeout("20 seconds"), Effect.exit)
      assert.isTrue(Exit.isSuccess(closed))
      assert.strictEqual((yield* droppedSpans) - before, 1)
    }))

  it.live("leaves no connection and no timer behind", () =>
    Effect.gen(function*() {
      const collector = yield* Collector.start()
      const timers = () => process.getActiveResourcesInfo().filter((name) => name === "Timeout").length
      const before = timers()
      yield* traced(
        { OTEL_EXPORTER_OTLP_ENDPOINT: collector.url, OTEL_BSP_SCHEDULE_DELAY: "20" },
        Effect.gen(function*() {
          for (const spans of [1, 2]) {
            yield* Effect.void.pipe(request("one"))
            yield* eventually(() => collector.spans.length === spans)
          }
          // One is kept for all batches.
          assert.strictEqual(yield* collector.connections, 1)
        })
      )
      yield* eventually(Effect.map(collector.connections, (count) => count === 0))
      // Node's HTTP server, too, has a timer, for a second.
      yield* eventually(() => timers() <= before)
    }))

  it.live("complains of a variable that cannot be used, and runs", () =>
    Effect.gen(function*() {
      const logs = yield* traced({ OTEL_EXPORTER_OTLP_ENDPOINT: "nowhere" }, Effect.void.pipe(request("one")))
      assert.deepStrictEqual(logs, [
        "OTEL_EXPORTER_OTLP_ENDPOINT: expected a URL such as http://collector:4318, without user or password; no traces are exported"
      ])
    }))

  it.live("exports with the default where a variable is wrong: a batch of no spans would never end", () =>
    Effect.gen(function*() {
      const collector = yield* Collector.start()
      const logs = yield* traced(
        { OTEL_EXPORTER_OTLP_ENDPOINT: collector.url, OTEL_BSP_MAX_EXPORT_BATCH_SIZE: "0" },
        Effect.void.pipe(request("one"))
      )
      assert.match(logs[0] ?? "", /^OTEL_BSP_MAX_EXPORT_BATCH_SIZE: expected a whole number/)
      assert.strictEqual(collector.spans.length, 1)
    }))
})
