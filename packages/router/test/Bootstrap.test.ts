import { assert, describe, it } from "@effect/vitest"
import * as LeaderElection from "@spegel-ts/leader-election/LeaderElection"
import * as Bootstrap from "@spegel-ts/router/Bootstrap"
import type * as HttpDocument from "@spegel-ts/router/HttpDocument"
import * as PeerAddress from "@spegel-ts/router/PeerAddress"
import * as Certificates from "@spegel-ts/testing/kubernetes/Certificates"
import { Effect, Fiber, Option, Result, Stream } from "effect"
import { TestClock } from "effect/testing"
import { mkdtemp, readFile, rm } from "node:fs/promises"
import { createServer } from "node:http"
import { createServer as createSecureServer } from "node:https"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"

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
  it("reads peers as multiaddrs and as sockets", () => {
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
      assert.include(error.message, "--dns-bootstrap-domain")
    }))

  const served = (answer: string, status = 200) =>
    Effect.acquireRelease(
      Effect.callback<URL>((resume) => {
        const server = createServer((_request, response) => response.writeHead(status).end(answer))
        server.listen(0, "127.0.0.1", () => {
          const { port } = server.address() as AddressInfo
          resume(Effect.succeed(new URL(`http://127.0.0.1:${port}/id`)))
        })
        return Effect.sync(() => server.close())
      }),
      () => Effect.void
    )

  it.live("takes what a URL lists, as one node or several", () =>
    Effect.gen(function*() {
      for (
        const [answer, expected] of [
          [`[{"ID":"${id}","Addrs":["/ip4/10.0.0.7/tcp/5001","/dns4/x/tcp/1"]}]`, [`/ip4/10.0.0.7/tcp/5001/p2p/${id}`]],
          ["{\"ID\":\"\",\"Addrs\":[\"/ip4/10.0.0.7/tcp/5001\"]}", ["/ip4/10.0.0.7/tcp/5001"]],
          ["[]", []],
          // All of them: the last may be the one that is alive.
          [
            JSON.stringify(Array.from({ length: 1000 }, (_, index) => ({ ID: id, Addrs: [addressOf(index)] }))),
            Array.from({ length: 1000 }, (_, index) => `${addressOf(index)}/p2p/${id}`)
          ]
        ] as const
      ) {
        const url = yield* served(answer)
        assert.deepStrictEqual(yield* Bootstrap.fromHttp({ url }).addresses, expected)
      }
    }))

  it.live("says what is wrong with what a URL answers", () =>
    Effect.gen(function*() {
      for (
        const [answer, status, words] of [
          ["no", 404, "status 404"],
          ["<html>", 200, "no list of peers"],
          [JSON.stringify([{ Addrs: ["/dns4/x/tcp/1"] }]), 200, "none of its addresses"],
          [" ".repeat(1_100_000), 200, "larger than 1048576 bytes"]
        ] as const
      ) {
        const error = yield* Effect.flip(Bootstrap.fromHttp({ url: yield* served(answer, status) }).addresses)
        assert.include(error.message, words)
      }
      const gone = yield* Effect.flip(Bootstrap.fromHttp({ url: new URL("http://127.0.0.1:1/id") }).addresses)
      assert.include(gone.message, "--http-bootstrap-peer")
    }))

  const noTls = Certificates.missingPrerequisite(process.env)
  const note = noTls === undefined ? "" : ` (skipped: ${noTls})`
  it.live.skipIf(noTls !== undefined)(
    `asks over TLS, and shows its certificate where one is wanted${note}`,
    () =>
      Effect.gen(function*() {
        const directory = yield* Effect.acquireRelease(
          Effect.promise(() => mkdtemp(join(tmpdir(), "bootstrap-"))),
          (directory) => Effect.promise(() => rm(directory, { recursive: true }))
        )
        const { ca, certificate } = yield* Certificates.authority(directory)
        const own = yield* certificate("node")
        const [authority, cert, key] = yield* Effect.promise(() =>
          Promise.all([ca, own.cert, own.key].map((path) => readFile(path)))
        )
        const server = createSecureServer(
          { cert, key, ca: authority, requestCert: true },
          (_request, response) => response.end(`[{"ID":"","Addrs":["/ip4/10.0.0.7/tcp/5001"]}]`)
        )
        const port = yield* Effect.acquireRelease(
          Effect.callback<number>((resume) => {
            server.listen(0, "127.0.0.1", () => resume(Effect.succeed((server.address() as AddressInfo).port)))
          }),
          () => Effect.sync(() => server.close())
        )
        const url = new URL(`https://127.0.0.1:${port}/id`)
        const ask = (tls: HttpDocument.TlsFiles) => Bootstrap.fromHttp({ url, tls }).addresses
        assert.deepStrictEqual(yield* ask({ ca, ...own }), ["/ip4/10.0.0.7/tcp/5001"])
        assert.include((yield* Effect.flip(ask({ ca }))).message, "cannot be reached")
        assert.include((yield* Effect.flip(ask(own))).message, "certificate")
        assert.include((yield* Effect.flip(ask({ ca: join(directory, "gone") }))).message, "cannot be read")
      })
  )

  const leader = (holder: Option.Option<string>) => ({
    leader: Stream.make(Option.map(holder, (holder) => LeaderElection.Identity.make(holder))),
    isLeader: Effect.succeed(false)
  })
  const fromLeader = (holder: Option.Option<string>, loopback = false) =>
    Bootstrap.fromLeader(leader(holder), { self: `/ip4/10.0.0.1/tcp/5001/p2p/${id}`, usable: { loopback } }).addresses

  it.effect("takes the holder of a lease, if that is another and an address", () =>
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

  it.effect("asks an election that cannot be read again, and says so meanwhile", () =>
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

describe("PeerAddress", () => {
  it("keeps peers inside ranges, where there are any", () => {
    const within = Result.getOrThrow(PeerAddress.parseCidrs(["10.0.0.0/8", "fd00::/8"]))
    const usable = (ip: string) => PeerAddress.isUsable(ip, { loopback: false, within })
    assert.deepStrictEqual(["10.1.2.3", "fd00::1", "192.168.0.1", "2001:db8::1"].map(usable), [
      true,
      true,
      false,
      false
    ])
    for (const cidr of ["10.0.0.0", "10.0.0.0/33", "x/8", "fd00::/129", ""]) {
      assert.isTrue(Result.isFailure(PeerAddress.parseCidrs([cidr])), cidr)
    }
  })

  it("never takes addresses that lead back, to the metadata service, or to many", () => {
    for (
      const ip of [
        "127.0.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "fe80::1",
        "ff02::1",
        "::"
      ]
    ) {
      assert.isFalse(PeerAddress.isUsable(ip, { loopback: false }), ip)
    }
  })
})
