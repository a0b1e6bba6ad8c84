import { assert, describe, it } from "@effect/vitest"
import * as RequestProof from "@spegel-ts/registry/internal/auth/RequestProof"
import { Router } from "@spegel-ts/router/Router"
import { ringOf } from "@spegel-ts/testing/ClusterKeys"
import { eventually } from "@spegel-ts/testing/Eventually"
import { Clock, Duration, Effect, Option, Redacted } from "effect"
import { error, get, ns } from "../mirror/FalsePeer.ts"
import { startNode } from "../TestNode.ts"
import { auth, changing, failures, newLine, oldLine, ring } from "./Keys.ts"
import {
  blobFields,
  blobUrl,
  large,
  largeDigest,
  manifest,
  manifestDigest,
  proofOf,
  signedAnswer,
  small,
  smallDigest,
  startAsker,
  startHolder,
  startProvedFalsePeer,
  tagUrl
} from "./ProvedPeers.ts"

/** Real time, with another time of day. */
const shifted = (by: Duration.Duration) =>
  Effect.map(Clock.Clock, (real): Clock.Clock => {
    const wall = () => real.currentTimeNanosUnsafe() + Duration.toNanosUnsafe(by)
    return {
      currentTimeNanosUnsafe: wall,
      currentTimeNanos: Effect.sync(wall),
      currentTimeMillisUnsafe: () => Number(wall() / 1_000_000n),
      currentTimeMillis: Effect.sync(() => Number(wall() / 1_000_000n)),
      monotonicTimeNanosUnsafe: () => real.monotonicTimeNanosUnsafe(),
      monotonicTimeNanos: Effect.sync(() => real.monotonicTimeNanosUnsafe()),
      sleep: (duration) => real.sleep(duration)
    }
  })

const at = (by: Duration.Duration) => <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.flatMap(shifted(by), (clock) => Effect.provideService(effect, Clock.Clock, clock))

describe("peers that have the cluster key", () => {
  it.live("give each other manifests, tags, small and large blobs, and parts of them", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      yield* startHolder(network, "127.0.25.2")
      const { url } = yield* startAsker(network, "127.0.25.3")
      for (
        const [target, bytes] of [
          [tagUrl(url), manifest],
          [`${url}/v2/team/app/manifests/${manifestDigest}?ns=${ns}`, manifest],
          [blobUrl(url, smallDigest), small],
          [blobUrl(url, largeDigest), large]
        ] as const
      ) {
        const head = yield* get(target, { method: "HEAD" })
        assert.deepStrictEqual([head.status, head.headers.get("content-length")], [200, String(bytes.length)])
        assert.isTrue((yield* get(target)).body.equals(bytes), target)
      }
      const part = yield* get(blobUrl(url, largeDigest), { headers: { range: "bytes=5-1000004" } })
      assert.strictEqual(part.status, 206)
      assert.isTrue(part.body.equals(large.subarray(5, 1_000_005)))
    }))

  it.live("do so though each asks for a password, which they do not send to each other", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const basicAuth = Option.some({ username: "user", password: Redacted.make("secret") })
      const peer = yield* startProvedFalsePeer(
        network,
        "127.0.25.4",
        (request) => signedAnswer(request, 404, "{}"),
        smallDigest
      )
      yield* startHolder(network, "127.0.25.2", { basicAuth })
      const { url } = yield* startNode(network, "127.0.25.3", { basicAuth, auth: auth("require") })
      const authorization = `Basic ${Buffer.from("user:secret").toString("base64")}`
      const { body } = yield* get(blobUrl(url, smallDigest), { headers: { authorization } })
      assert.isTrue(body.equals(small))
      assert.notInclude(peer.requests.join().toLowerCase(), "authorization")
      assert.strictEqual(peer.requests.length, 1)
    }))

  for (const [how, by] of [["ahead", Duration.days(1)], ["behind", Duration.days(-1)]] as const) {
    it.live(`understand each other when one's clock is a day ${how}, and try twice only once`, () =>
      Effect.gen(function*() {
        const network = Router.memoryNetwork()
        const before = yield* failures("clock")
        yield* at(by)(startHolder(network, "127.0.25.2"))
        const { url } = yield* startAsker(network, "127.0.25.3")
        assert.isTrue((yield* get(blobUrl(url, smallDigest))).body.equals(small))
        assert.isTrue((yield* get(blobUrl(url, largeDigest))).body.equals(large))
        assert.isTrue((yield* get(tagUrl(url))).body.equals(manifest))
        assert.strictEqual((yield* failures("clock")) - before, 1)
      }))
  }

  it.live("understand each other while a key is being replaced, whoever reads it first", () =>
    Effect.gen(function*() {
      for (
        const [asker, holder] of [
          [ringOf(newLine, oldLine), ringOf(oldLine)],
          [ringOf(oldLine), ringOf(newLine, oldLine)],
          [ringOf(newLine, oldLine), ringOf(newLine)],
          [ringOf(newLine), ringOf(newLine, oldLine)],
          [ringOf(newLine, oldLine), ringOf(oldLine, newLine)]
        ] as const
      ) {
        const network = Router.memoryNetwork()
        yield* startHolder(network, "127.0.25.2", { auth: auth("require", holder) })
        const { url } = yield* startAsker(network, "127.0.25.3", { auth: auth("prefer", asker) })
        const before = yield* failures("other_key")
        assert.strictEqual((yield* get(blobUrl(url, smallDigest))).status, 200)
        assert.strictEqual((yield* get(blobUrl(url, largeDigest))).status, 200)
        // The key that works is remembered.
        assert.isAtMost((yield* failures("other_key")) - before, 1)
      }
    }))

  it.live("no longer believe each other when their keys have nothing in common, and say so", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const keys = changing("require", ringOf(newLine, oldLine))
      yield* startHolder(network, "127.0.25.2", { auth: keys.auth })
      const asker = yield* startAsker(network, "127.0.25.3", { auth: auth("prefer", ringOf(oldLine)) })
      assert.strictEqual((yield* get(blobUrl(asker.url, smallDigest))).status, 200)
      keys.replace(ringOf(newLine))
      const refused = yield* get(blobUrl(asker.url, largeDigest))
      assert.strictEqual(refused.status, 404)
      assert.include(error(refused.body).message, "have no cluster key in common")
    }))

  it.live("sign a complaint as well", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const liar = yield* startProvedFalsePeer(
        network,
        "127.0.25.4",
        (request) => signedAnswer(request, 200, Buffer.alloc(small.length, "x"), blobFields),
        smallDigest
      )
      const { url } = yield* startAsker(network, "127.0.25.3")
      assert.strictEqual((yield* get(blobUrl(url, smallDigest))).status, 404)
      yield* eventually(
        Effect.sync(() => liar.requests.some((request) => /^x-spegel-suspect: true\r$/im.test(request)))
      )
      const complaint = liar.requests.find((request) => request.includes("x-spegel-suspect")) ?? ""
      const proof = proofOf(complaint)
      if (proof === undefined) return assert.fail("not signed")
      const [method = "", target = ""] = complaint.split(" ")
      const said = { receiver: liar.id, method, target, range: undefined, said: ["x-spegel-suspect", "true"] }
      assert.isTrue(RequestProof.isRight(ring.current("registry"), said, proof))
      assert.isFalse(RequestProof.isRight(ring.current("registry"), { ...said, said: [] }, proof))
    }))
})
