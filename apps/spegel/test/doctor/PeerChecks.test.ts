import { assert, describe, it } from "@effect/vitest"
import { Answerer } from "@spegel-ts/spegel/doctor/MirrorProbe"
import * as PeerChecks from "@spegel-ts/spegel/doctor/PeerChecks"
import * as LocalServer from "@spegel-ts/testing/network/LocalServer"
import { Effect, Option, Redacted } from "effect"
import { createServer } from "node:http"

const token = "v1.token"

/** A peer whose clock is ahead by so many seconds. */
const startPeer = (aheadSeconds: number) =>
  LocalServer.listen(createServer((_, response) => {
    response.setHeader("date", new Date(Date.now() + aheadSeconds * 1000).toUTCString())
    response.end("{}")
  }))

interface Listed {
  readonly servicePort: number
  readonly proved?: boolean
  readonly self?: boolean
}

/** The verdicts of a mirror that lists these peers to whoever has its token. */
const checkOf = Effect.fnUntraced(function*(peers: ReadonlyArray<Listed> | string, isProving = true) {
  const port = yield* LocalServer.listen(createServer((request, response) => {
    if (request.headers.authorization !== `Bearer ${token}`) return response.writeHead(401).end()
    const listed = typeof peers === "string" ? peers : JSON.stringify(
      peers.map((peer, index) => ({ id: `peer-${index}`, addresses: ["127.0.0.1"], ...peer, agent: "unknown to us" }))
    )
    return response.end(listed)
  }))
  const checks = yield* PeerChecks.check({
    metricsUrl: `http://127.0.0.1:${port}`,
    token: Option.some(Redacted.make(token)),
    isProving,
    mirror: Answerer.Mirror({ isOpen: false })
  })
  return checks.map(({ found, name, verdict }) => ({ name, verdict, found }))
})

const verdicts = (checks: ReadonlyArray<{ readonly verdict: string }>) => checks.map(({ verdict }) => verdict)

describe("PeerChecks", () => {
  it.live("is content with peers that are proved, reachable, and of the same time", () =>
    Effect.gen(function*() {
      const servicePort = yield* startPeer(0)
      const checks = yield* checkOf([{ servicePort, proved: true }, { servicePort: 1, self: true }])
      assert.deepStrictEqual(verdicts(checks), ["ok", "ok"])
      assert.strictEqual(checks[0]?.found, "1 peer, all with the cluster key")
    }))

  it.live("warns where there are none", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(verdicts(yield* checkOf([])), ["warning", "skipped"])
    }))

  it.live("warns of peers that have not proved the key, where they should", () =>
    Effect.gen(function*() {
      const servicePort = yield* startPeer(0)
      const peers = [{ servicePort, proved: true }, { servicePort }]
      const [check] = yield* checkOf(peers)
      assert.deepStrictEqual(check, {
        name: "peers",
        verdict: "warning",
        found: "1 of 2 peers have not proved the cluster key"
      })
      assert.deepStrictEqual(verdicts(yield* checkOf(peers, false)), ["ok", "ok"])
    }))

  it.live("warns of a peer that cannot be reached, and takes it for a problem if none can", () =>
    Effect.gen(function*() {
      const servicePort = yield* startPeer(0)
      const gone = { servicePort: 2, proved: true }
      const some = yield* checkOf([{ servicePort, proved: true }, gone])
      assert.deepStrictEqual(verdicts(some), ["warning", "ok"])
      assert.include(
        some[0]?.found,
        "1 of 2 peers that were asked did not answer on their registry port, such as 127.0.0.1:2"
      )
      assert.deepStrictEqual(verdicts(yield* checkOf([gone])), ["problem", "skipped"])
    }))

  it.live("warns of clocks that differ", () =>
    Effect.gen(function*() {
      const [, minute] = yield* checkOf([{ servicePort: yield* startPeer(60), proved: true }])
      assert.strictEqual(minute?.verdict, "warning")
      assert.match(minute?.found ?? "", /^the clock of 127\.0\.0\.1:\d+ is (?:59|60|61) s ahead of this node's$/)
      const [, behind] = yield* checkOf([{ servicePort: yield* startPeer(-3600), proved: true }])
      assert.strictEqual(behind?.verdict, "warning")
      assert.include(behind?.found, "s behind this node's")
    }))

  it.live("skips what it cannot read", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(verdicts(yield* checkOf("<html>")), ["skipped", "skipped"])
    }))
})
