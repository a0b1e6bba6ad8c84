import { assert, describe, it } from "@effect/vitest"
import * as Digest from "@spegel-ts/oci/Digest"
import * as RegistryMetrics from "@spegel-ts/registry/internal/observe/RegistryMetrics"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import { Router } from "@spegel-ts/router/Router"
import { Effect, Metric, Schedule } from "effect"
import { begun, get, ns, response, startFalsePeer } from "../mirror/FalsePeer.ts"
import * as RawClient from "../RawClient.ts"
import { startNode } from "../TestNode.ts"

const small = Buffer.from("a small layer ".repeat(100))
const smallDigest = Digest.ofBytes(small)
/** Larger than what is verified before it is answered. */
const large = Buffer.alloc(6 * 1024 * 1024, "spegel")
const largeDigest = Digest.ofBytes(large)

const blobPath = (digest: string) => `/v2/team/app/blobs/${digest}?ns=${ns}`

/** All counters, gauges and counts of histograms, as `name{label=value,...}`. */
const series = Effect.map(Metric.snapshot, (metrics) =>
  new Map(metrics.map((metric) => {
    const labels = Object.entries(metric.attributes ?? {}).map(([name, value]) => `${name}=${value}`).join(",")
    const { state } = metric as { readonly state: { readonly count?: number; readonly value?: number } }
    return [labels === "" ? metric.id : `${metric.id}{${labels}}`, Number(state.count ?? state.value)]
  })))

/** Waits until an effect has added so much to each series; a request is counted after its last byte. All of them were there before. */
const untilGrown = <E, R>(
  effect: Effect.Effect<unknown, E, R>,
  expected: Readonly<Record<string, number>>
) =>
  Effect.gen(function*() {
    const names = Object.keys(expected)
    const before = yield* series
    for (const name of names) assert.isTrue(before.has(name), `${name} was not there before`)
    yield* effect
    const growth = Effect.map(series, (after) =>
      Object.fromEntries(names.map((name) => [name, (after.get(name) ?? NaN) - (before.get(name) ?? NaN)])))
    yield* growth.pipe(Effect.repeat({
      until: (grown) =>
        names.every((name) => grown[name] === expected[name]),
      schedule: Schedule.spaced("10 millis"),
      times: 300
    }))
    assert.deepStrictEqual(yield* growth, expected)
  })

describe("RegistryMetrics", () => {
  it.live("exist as 0 for all known labels before anything happens", () =>
    Effect.gen(function*() {
      yield* startNode(Router.memoryNetwork(), "127.0.0.71", { mirroredRegistries: ["docker.io"] })
      const known = yield* series
      const expected = [
        "spegel_mirror_requests_total{registry=docker.io,cache=hit}",
        "spegel_mirror_requests_total{registry=docker.io,cache=miss}",
        "spegel_mirror_circuit_openings_total{registry=docker.io}",
        "spegel_mirror_last_success_timestamp_seconds",
        "spegel_mirror_corruptions_total",
        "spegel_mirror_ingests_discarded_total",
        "spegel_mirror_relayed_bytes_total",
        ...["committed", "right", "wrong", "unknown"].map((fate) => `spegel_mirror_commits_total{fate=${fate}}`),
        ...[
          "ContentCorrupted",
          "NoMemoryForBody",
          "PeerDisconnected",
          "PeerRefused",
          "PeerSlow",
          "PeerStalled",
          "PeerUnreachable"
        ].map((reason) => `spegel_mirror_peer_failures_total{reason=${reason}}`),
        "spegel_served_bytes_total{source=local,client=node}",
        "spegel_served_bytes_total{source=local,client=peer}",
        "spegel_served_bytes_total{source=peer,client=node}",
        "spegel_content_damaged_total",
        "spegel_uploads_inflight",
        "spegel_uploads_refused_total{bound=all}",
        "spegel_uploads_refused_total{bound=peer}",
        ...["blob", "manifest", "tagslist", "referrers", "ping", "livez", "readyz", "invalid"].map((handler) =>
          `http_requests_inflight{handler=${handler}}`
        ),
        ...["blob", "manifest"].flatMap((handler) =>
          ["GET", "HEAD"].flatMap((method) =>
            [200, 404, 503].map((code) =>
              `http_request_duration_seconds{handler=${handler},method=${method},code=${code}}`
            )
          )
        ),
        "http_request_duration_seconds{handler=blob,method=GET,code=206}",
        "http_request_duration_seconds{handler=blob,method=GET,code=0}",
        "http_request_duration_seconds{handler=readyz,method=GET,code=503}"
      ]
      assert.deepStrictEqual(expected.map((name) => [name, known.get(name)]), expected.map((name) => [name, 0]))
    }))

  it.live("count a miss in a series that existed", () =>
    Effect.gen(function*() {
      const node = yield* startNode(Router.memoryNetwork(), "127.0.0.71", { mirroredRegistries: [ns] })
      yield* untilGrown(get(node.url + blobPath(smallDigest)), {
        [`spegel_mirror_requests_total{registry=${ns},cache=hit}`]: 0,
        [`spegel_mirror_requests_total{registry=${ns},cache=miss}`]: 1,
        "http_request_duration_seconds{handler=blob,method=GET,code=404}": 1
      })
    }))

  it.live("count the first failure of a peer, and wrong bytes, in series that existed", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const node = yield* startNode(network, "127.0.0.71", { mirroredRegistries: [ns] })
      yield* startFalsePeer(network, "127.0.0.73", (socket) => socket.write(response(500, "no")), smallDigest)
      yield* startFalsePeer(
        network,
        "127.0.0.74",
        (socket) => socket.write(response(200, Buffer.alloc(small.length))),
        smallDigest
      )
      yield* untilGrown(get(node.url + blobPath(smallDigest)), {
        "spegel_mirror_peer_failures_total{reason=PeerRefused}": 1,
        "spegel_mirror_peer_failures_total{reason=ContentCorrupted}": 1,
        "spegel_mirror_corruptions_total": 1,
        [`spegel_mirror_requests_total{registry=${ns},cache=miss}`]: 1
      })
    }))

  it.live("count bytes by their origin and their client", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const holder = yield* startNode(network, "127.0.0.72")
      yield* Effect.forEach([small, large], holder.content.put)
      yield* holder.router.advertise([smallDigest, largeDigest].map(ContentKey.make))
      const node = yield* startNode(network, "127.0.0.71")
      const served = (own: number, peers: number, mirrored: number, relayed: number) => ({
        "spegel_served_bytes_total{source=local,client=node}": own,
        "spegel_served_bytes_total{source=local,client=peer}": peers,
        "spegel_served_bytes_total{source=peer,client=node}": mirrored,
        "spegel_mirror_relayed_bytes_total": relayed
      })
      // Held and verified first: it is not relayed.
      yield* untilGrown(get(node.url + blobPath(smallDigest)), served(0, small.length, small.length, 0))
      yield* untilGrown(
        get(node.url + blobPath(largeDigest)),
        served(0, large.length, large.length, large.length)
      )
      yield* untilGrown(get(holder.url + blobPath(largeDigest)), served(large.length, 0, 0, 0))
      // From memory, and from memory without a fiber.
      yield* untilGrown(
        Effect.forEach([1, 2, 3], () => get(holder.url + blobPath(smallDigest))),
        served(3 * small.length, 0, 0, 0)
      )
      yield* untilGrown(
        get(holder.url + blobPath(largeDigest), { headers: { range: "bytes=10-109" } }),
        served(100, 0, 0, 0)
      )
      for (const url of [holder.url, node.url]) {
        yield* untilGrown(get(url + blobPath(largeDigest), { method: "HEAD" }), served(0, 0, 0, 0))
        yield* untilGrown(get(url + blobPath(Digest.ofBytes(Buffer.from("absent")))), served(0, 0, 0, 0))
      }
    }))

  it.live("count the bytes sent of a body that ends early, and a client that leaves as served", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const node = yield* startNode(network, "127.0.0.71", { mirroredRegistries: [ns] })
      const sent = 1_000_000
      // It goes on when it is told to, which is never.
      yield* startFalsePeer(
        network,
        "127.0.0.73",
        (socket, request) => socket.write(begun(large, request, sent)),
        largeDigest
      )
      const leave = Effect.scoped(Effect.gen(function*() {
        const client = yield* RawClient.open({ host: node.address, port: node.port }, blobPath(largeDigest))
        const { status } = yield* Effect.promise(() => client.head)
        assert.strictEqual(status, 200)
        let bytes = 0
        client.socket.on("data", (chunk: Buffer) => bytes += chunk.length).resume()
        yield* Effect.sync(() => bytes).pipe(
          Effect.repeat({
            until: (bytes) => bytes >= sent - 65_536,
            schedule: Schedule.spaced("5 millis"),
            times: 1000
          })
        )
      }))
      yield* untilGrown(leave, {
        "spegel_served_bytes_total{source=peer,client=node}": sent,
        "spegel_mirror_relayed_bytes_total": sent,
        "http_request_duration_seconds{handler=blob,method=GET,code=0}": 1,
        [`spegel_mirror_requests_total{registry=${ns},cache=hit}`]: 1,
        [`spegel_mirror_requests_total{registry=${ns},cache=miss}`]: 0
      })
    }))

  it.live("count registries beyond a hundred together, with hits and misses apart", () =>
    Effect.gen(function*() {
      for (let number = 0; number < 300; number++) {
        yield* RegistryMetrics.mirrored(`registry-${number}.example`, number % 3 === 0)
        yield* RegistryMetrics.circuitOpened(`registry-${number}.example`)
      }
      const all = yield* series
      const registriesOf = (name: string) =>
        new Set(
          [...all.keys()].flatMap((key) => key.startsWith(`${name}{`) ? [/registry=([^,}]*)/.exec(key)?.[1]] : [])
        )
      for (const name of ["spegel_mirror_requests_total", "spegel_mirror_circuit_openings_total"]) {
        assert.strictEqual(registriesOf(name).size, 101)
        assert.isTrue(registriesOf(name).has("other"))
      }
      const [hits = 0, misses = 0] = ["hit", "miss"].map((cache) =>
        all.get(`spegel_mirror_requests_total{registry=other,cache=${cache}}`)
      )
      assert.isAbove(hits, 60)
      assert.isAbove(misses, hits)
    }))
})
