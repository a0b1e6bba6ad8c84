import { assert, describe, it } from "@effect/vitest"
import * as LeaderElection from "@spegel-ts/leader-election/LeaderElection"
import * as Bootstrap from "@spegel-ts/router/Bootstrap"
import { listen } from "@spegel-ts/testing/network/LocalServer"
import { Effect, Fiber, Option, Result, Stream } from "effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as HttpClient from "effect/http/HttpClient"
import { TestClock } from "effect/testing"
import { createServer, type Server } from "node:http"

const id = "12D3KooWE1XLuaqfxW6hJNB7aSXHSpzA5BoH3fw5nm75pxJhJnpz"
const source = (...addresses: ReadonlyArray<string>) => ({
  addresses: Effect.succeed(addresses),
  changes: Stream.never
})
const broken = {
  changes: Stream.never,
  addresses: Effect.fail(new Bootstrap.BootstrapUnavailable({ source: "dns nowhere", hint: "does not resolve" }))
}

const addressOf = (index: number) => `/ip4/10.0.${index >> 8}.${index & 255}/tcp/5001`

describe("Bootstrap", () => {
  it("parses peers as multiaddrs and as IP:port", () => {
    for (
      const [written, expected] of [
        ["10.0.0.7:5001", "/ip4/10.0.0.7/tcp/5001"],
        ["[fd00::7]:5001", "/ip6/fd00::7/tcp/5001"],
        ["/ip4/10.0.0.7/tcp/5001", "/ip4/10.0.0.7/tcp/5001"],
        [
          `/ip4/10.0.0.7/tcp/5001/p2p/${id}`,
          `/ip4/10.0.0.7/tcp/5001/p2p/${id}`
        ]
      ] as const
    ) {
      assert.deepStrictEqual(Bootstrap.parsePeer(written), Result.succeed(expected))
    }
    for (
      const written of [
        "",
        "10.0.0.7",
        "10.0.0.7:99999",
        "host:5001",
        "/ip4/10.0.0.7/udp/5001",
        "/dns/host/tcp/1",
        "/ip4/x/tcp/1"
      ]
    ) {
      assert.isTrue(Result.isFailure(Bootstrap.parsePeer(written)), written)
    }
  })

  it.effect("asks all sources, names each address once, and says which source is missing", () =>
    Effect.gen(function*() {
      const sources = [source("/ip4/10.0.0.1/tcp/1"), source("/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.2/tcp/1")]
      const all = ["/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.2/tcp/1"]
      assert.deepStrictEqual(yield* Bootstrap.merge(sources).addresses, all)
      const partly = yield* Effect.flip(Bootstrap.merge([broken, ...sources]).addresses)
      assert.include(partly.message, "dns nowhere")
      assert.deepStrictEqual(partly.found, all)
      const error = yield* Effect.flip(Bootstrap.merge([broken, source()]).addresses)
      assert.include(error.message, "dns nowhere")
    }))

  it.live("resolves a name to the addresses behind it", () =>
    Effect.gen(function*() {
      const addresses = yield* Bootstrap.fromDns({ name: "localhost", port: 5001 }).addresses
      assert.include(["/ip4/127.0.0.1/tcp/5001", "/ip6/::1/tcp/5001"], addresses[0])
      const error = yield* Effect.flip(Bootstrap.fromDns({ name: "nowhere.invalid", port: 5001 }).addresses)
      assert.include(error.message, "nowhere.invalid")
    }))

  const urlOf = (server: Server) => Effect.map(listen(server), (port) => new URL(`http://127.0.0.1:${port}/id`))

  const served = (answer: string, status = 200) =>
    urlOf(createServer((_request, response) => response.writeHead(status).end(answer)))

  const ask = (url: URL) =>
    Effect.flatMap(HttpClient.HttpClient, (client) => Bootstrap.fromHttp({ url, client }).addresses).pipe(
      Effect.provide(FetchHttpClient.layer)
    )

  it.live("gives up when the answer does not end", () =>
    Effect.gen(function*() {
      const server = createServer((_request, response) => response.writeHead(200).write("["))
      const url = yield* urlOf(server)
      const client = yield* HttpClient.HttpClient
      const source = Bootstrap.fromHttp({ url, client, timeout: "200 millis" })
      assert.include((yield* Effect.flip(source.addresses)).message, "no complete answer in time")
      // The request was aborted.
      yield* Effect.callback<void>((resume) => {
        server.getConnections((_error, count) => count === 0 ? resume(Effect.void) : resume(Effect.die("connected")))
      }).pipe(Effect.delay("100 millis"))
    }).pipe(Effect.provide(FetchHttpClient.layer)))

  it.live("takes the peers that a URL lists, one or several", () =>
    Effect.gen(function*() {
      for (
        const [answer, expected] of [
          [`[{"ID":"${id}","Addrs":["/ip4/10.0.0.7/tcp/5001","/dns4/x/tcp/1"]}]`, [`/ip4/10.0.0.7/tcp/5001/p2p/${id}`]],
          ["{\"ID\":\"\",\"Addrs\":[\"/ip4/10.0.0.7/tcp/5001\"]}", ["/ip4/10.0.0.7/tcp/5001"]],
          ["[]", []],
          // Long lists are taken whole: the last peer may be the only one alive.
          [
            JSON.stringify(Array.from({ length: 1000 }, (_, index) => ({ ID: id, Addrs: [addressOf(index)] }))),
            Array.from({ length: 1000 }, (_, index) => `${addressOf(index)}/p2p/${id}`)
          ]
        ] as const
      ) {
        assert.deepStrictEqual(yield* ask(yield* served(answer)), expected)
      }
    }))

  it.live("says what is wrong with a URL's answer", () =>
    Effect.gen(function*() {
      for (
        const [answer, status, words] of [
          ["no", 404, "status 404"],
          ["<html>", 200, "not a list of peers"],
          [JSON.stringify([{ Addrs: ["/dns4/x/tcp/1"] }]), 200, "none of its addresses"],
          [" ".repeat(1_100_000), 200, "larger than 1048576 bytes"]
        ] as const
      ) {
        const error = yield* Effect.flip(ask(yield* served(answer, status)))
        assert.include(error.message, words)
      }
      const gone = yield* Effect.flip(ask(new URL("http://127.0.0.1:1/id")))
      assert.include(gone.message, "cannot be reached")
    }))

  const leader = (holder: Option.Option<string>) => ({
    leader: Stream.make(Option.map(holder, (holder) => LeaderElection.Identity.make(holder))),
    isLeader: Effect.succeed(false)
  })
  const fromLeader = (holder: Option.Option<string>, loopback = false) =>
    Bootstrap.fromLeader(leader(holder), { self: `/ip4/10.0.0.1/tcp/5001/p2p/${id}`, usable: { loopback } }).addresses

  it.effect("takes the holder of a lease if it is another node, named by its address", () =>
    Effect.gen(function*() {
      const other = `/ip4/10.0.0.2/tcp/5001/p2p/${id}`
      assert.deepStrictEqual(yield* fromLeader(Option.some(other)), [other])
      assert.deepStrictEqual(yield* fromLeader(Option.none()), [])
      assert.deepStrictEqual(yield* fromLeader(Option.some(`/ip4/10.0.0.1/tcp/5001/p2p/${id}`)), [])
      for (const bad of ["some-pod_uuid", "/ip4/169.254.169.254/tcp/80", "/ip4/127.0.0.1/tcp/5001", "/dns4/x/tcp/1"]) {
        assert.include((yield* Effect.flip(fromLeader(Option.some(bad)))).message, JSON.stringify(bad))
      }
      assert.deepStrictEqual(yield* fromLeader(Option.some("/ip4/127.0.0.1/tcp/5001"), true), [
        "/ip4/127.0.0.1/tcp/5001"
      ])
    }))

  it.effect("retries an election that cannot be read, and reports it meanwhile", () =>
    Effect.gen(function*() {
      let readable = false
      const unavailable = new LeaderElection.LeaseUnavailable({ lease: "ns/name", hint: "denied" })
      const source = Bootstrap.fromLeader({
        leader: Stream.suspend(() =>
          readable
            ? Stream.make(Option.some(LeaderElection.Identity.make("/ip4/10.0.0.2/tcp/5001")))
            : Stream.fail(unavailable)
        ),
        isLeader: Effect.succeed(false)
      }, { self: "", usable: { loopback: false } })
      assert.include((yield* Effect.flip(source.addresses)).message, "ns/name: denied")
      const changes = yield* Effect.forkChild(Stream.runCount(source.changes))
      yield* TestClock.adjust("5 seconds")
      readable = true
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(yield* Fiber.join(changes), 1)
    }))
})
