import { assert, describe, it } from "@effect/vitest"
import * as Bootstrap from "@spegel-ts/router/Bootstrap"
import { Effect, Result } from "effect"

const source = (...addresses: ReadonlyArray<string>) => ({ addresses: Effect.succeed(addresses) })
const broken = {
  addresses: Effect.fail(new Bootstrap.BootstrapUnavailable({ source: "dns nowhere", hint: "does not resolve" }))
}

describe("Bootstrap", () => {
  it("reads peers as multiaddrs and as sockets", () => {
    for (
      const [written, expected] of [
        ["10.0.0.7:5001", "/ip4/10.0.0.7/tcp/5001"],
        ["[fd00::7]:5001", "/ip6/fd00::7/tcp/5001"],
        ["/ip4/10.0.0.7/tcp/5001", "/ip4/10.0.0.7/tcp/5001"],
        [
          "/ip4/10.0.0.7/tcp/5001/p2p/12D3KooWE1XLuaqfxW6hJNB7aSXHSpzA5BoH3fw5nm75pxJhJnpz",
          "/ip4/10.0.0.7/tcp/5001/p2p/12D3KooWE1XLuaqfxW6hJNB7aSXHSpzA5BoH3fw5nm75pxJhJnpz"
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

  it.effect("asks all sources, and names each address once", () =>
    Effect.gen(function*() {
      const merged = Bootstrap.merge([
        source("/ip4/10.0.0.1/tcp/1"),
        broken,
        source("/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.2/tcp/1")
      ])
      assert.deepStrictEqual(yield* merged.addresses, ["/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.2/tcp/1"])
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
})
