import { assert, describe, it } from "@effect/vitest"
import * as ClientToken from "@spegel-ts/cluster-key/ClientToken"
import * as MediaType from "@spegel-ts/oci/MediaType"
import { ProofMemory } from "@spegel-ts/registry/internal/auth/ProofMemory"
import * as RequestProof from "@spegel-ts/registry/internal/auth/RequestProof"
import * as Outcome from "@spegel-ts/registry/Outcome"
import { Router } from "@spegel-ts/router/Router"
import { ringOf } from "@spegel-ts/testing/ClusterKeys"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { get, response, startFalsePeer } from "../mirror/FalsePeer.ts"
import { recordedOf } from "../Recorded.ts"
import { startNode } from "../TestNode.ts"
import { auth, failures, foreignRing, newLine, oldLine, ring } from "./Keys.ts"
import {
  blobFields,
  blobUrl,
  failureAt,
  large,
  largeDigest,
  proofOf,
  signedAnswer,
  small,
  smallDigest,
  startAsker,
  startHolder,
  startProvedFalsePeer
} from "./ProvedPeers.ts"

describe("an answer of a peer that has to prove itself", () => {
  const whole = (request: string) => signedAnswer(request, 200, small, blobFields)
  const own = { authorization: `Bearer ${ClientToken.make(ring, "asker")}` }
  const replaced = (from: string, to: string) => (request: string) =>
    Buffer.from(whole(request).toString("latin1").replace(from, to), "latin1")

  it.live("is believed if its proof is right", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const peer = yield* startProvedFalsePeer(network, "127.0.25.4", whole, smallDigest)
      const { url } = yield* startAsker(network, "127.0.25.3")
      assert.isTrue((yield* get(blobUrl(url, smallDigest))).body.equals(small))
      const proof = proofOf(peer.requests[0] ?? "")
      assert.approximately(proof?.time ?? 0, Date.now(), 10_000)
    }))

  const tampered: ReadonlyArray<readonly [string, (request: string) => Buffer]> = [
    ["its status", replaced("HTTP/1.1 200", "HTTP/1.1 404")],
    [
      "its status, to success",
      (request) =>
        Buffer.from(signedAnswer(request, 404, small, blobFields).toString("latin1").replace("404", "200"), "latin1")
    ],
    ["its length", replaced(`content-length: ${small.length}`, `content-length: ${small.length - 1}`)],
    ["its type", replaced(MediaType.octetStream, MediaType.imageManifest)],
    ["its digest", replaced(smallDigest, largeDigest)],
    ["a field removed", replaced(`content-type: ${MediaType.octetStream}\r\n`, "")],
    ["another nonce", (request) => signedAnswer(request, 200, small, blobFields, { nonce: RequestProof.newNonce() })],
    ["another key", (request) => signedAnswer(request, 200, small, blobFields, { keys: foreignRing })],
    ["another key under this key's id", (request) =>
      Buffer.from(
        signedAnswer(request, 200, small, blobFields, { keys: foreignRing }).toString("latin1").replace(
          foreignRing.current("registry").id,
          ring.current("registry").id
        ),
        "latin1"
      )]
  ]
  for (const [what, behave] of tampered) {
    it.live(`is not believed if it was tampered with: ${what}`, () =>
      Effect.gen(function*() {
        const network = Router.memoryNetwork()
        yield* startProvedFalsePeer(network, "127.0.25.4", behave, smallDigest)
        const asker = yield* startAsker(network, "127.0.25.3")
        const before = yield* failures("bad_signature")
        const { status } = yield* get(blobUrl(asker.url, smallDigest))
        assert.strictEqual(status, 404)
        assert.strictEqual(yield* failureAt(asker, smallDigest), "404; answered with a wrong proof of the cluster key")
        assert.strictEqual((yield* failures("bad_signature")) - before, 1)
      }))
  }

  it.live("is not believed if its range was tampered with", () =>
    Effect.gen(function*() {
      const part = large.subarray(10, 5_000_010)
      const range = `bytes 10-5000009/${large.length}`
      const answer = (request: string) =>
        signedAnswer(request, 206, part, {
          ...blobFields,
          "docker-content-digest": largeDigest,
          "content-range": range
        })
      for (
        const [behave, status] of [
          [answer, 206],
          // As if the part began elsewhere, or the whole were longer.
          [(request: string) => {
            const whole = answer(request)
            const end = whole.indexOf("\r\n\r\n")
            const head = whole.toString("latin1", 0, end).replace(`/${large.length}`, `/${large.length + 1}`)
            return Buffer.concat([Buffer.from(head, "latin1"), whole.subarray(end)])
          }, 404]
        ] as const
      ) {
        const network = Router.memoryNetwork()
        yield* startProvedFalsePeer(network, "127.0.25.4", behave, largeDigest)
        const { url } = yield* startAsker(network, "127.0.25.3")
        const got = yield* get(blobUrl(url, largeDigest), { headers: { range: "bytes=10-5000009" } })
        assert.strictEqual(got.status, status)
      }
    }))

  for (const mode of ["require", "prefer"] as const) {
    it.live(`is not believed without a proof, not even a refusal; another peer is asked (${mode})`, () =>
      Effect.gen(function*() {
        const unsigned = [
          response(200, small, `content-type: ${MediaType.octetStream}`, `docker-content-digest: ${smallDigest}`),
          response(404, "{}"),
          response(503, "{}", "retry-after: 30"),
          response(200, small, `x-spegel-auth: Basic`)
        ]
        for (const [index, answer] of unsigned.entries()) {
          const network = Router.memoryNetwork()
          yield* startHolder(network, "127.0.25.2")
          const stranger = yield* startProvedFalsePeer(network, "127.0.25.4", () => answer, smallDigest)
          // Where peers have to prove themselves, the router need not say that they have.
          if (mode === "require") {
            for (const [id, { addresses, servicePort }] of network.members) {
              network.members.set(id, { id, addresses, servicePort })
            }
          }
          const keys = mode === "require" ? auth("require") : auth("prefer")
          const asker = yield* startAsker(network, "127.0.25.3", { auth: keys, nodeName: "asker" })
          const reason = index === 3 ? "bad_signature" : "unsigned_answer"
          const before = yield* failures(reason)
          const { body, status } = yield* get(blobUrl(asker.url, smallDigest), { headers: own })
          assert.strictEqual(status, 200)
          assert.isTrue(body.equals(small))
          assert.strictEqual(stranger.requests.length, 1)
          assert.strictEqual((yield* failures(reason)) - before, 1)
          const { attempts } = yield* recordedOf(asker.log, smallDigest)
          assert.match(Outcome.print(attempts[0]?.outcome ?? Outcome.Outcome.Unanswered()), /proof of the cluster key/)
        }
      }))
  }

  it.live("is not asked for a proof where it has none: its answers are believed as ever", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const plain = response(200, small, `content-type: ${MediaType.octetStream}`)
      const peer = yield* startFalsePeer(network, "127.0.25.4", (socket) => socket.write(plain), smallDigest)
      for (const options of [{ auth: auth("prefer") }, {}]) {
        const { url } = yield* startNode(network, "127.0.25.3", options)
        assert.isTrue((yield* get(blobUrl(url, smallDigest))).body.equals(small))
      }
      assert.strictEqual(peer.requests.length, 2)
      for (const request of peer.requests) assert.notInclude(request.toLowerCase(), "x-spegel-auth")
    }))
})

describe("a refusal of a request's time", () => {
  const dayAhead = () => String(Date.now() + 86_400_000)

  it.live("does not move the clock of requests unless it is proved, for this very request", () =>
    Effect.gen(function*() {
      const replayed: { answer?: Buffer } = {}
      const oracles: ReadonlyArray<(request: string) => Buffer> = [
        () => response(404, "{}", `x-spegel-time: ${dayAhead()}`),
        (request) => signedAnswer(request, 404, "{}", { "x-spegel-time": dayAhead() }, { keys: foreignRing }),
        // A true refusal of another request.
        (request) =>
          replayed.answer ??= signedAnswer(request, 404, "{}", { "x-spegel-time": dayAhead() }, {
            nonce: RequestProof.newNonce()
          }),
        // The time was added to a true refusal, or changed.
        (request) =>
          Buffer.from(
            signedAnswer(request, 404, "{}").toString("latin1").replace(
              "\r\n\r\n",
              `\r\nx-spegel-time: ${dayAhead()}\r\n\r\n`
            ),
            "latin1"
          ),
        (request) =>
          Buffer.from(
            signedAnswer(request, 404, "{}", { "x-spegel-time": "1" }).toString("latin1").replace(
              "x-spegel-time: 1",
              `x-spegel-time: ${dayAhead()}`
            ),
            "latin1"
          )
      ]
      for (const [index, behave] of oracles.entries()) {
        const network = Router.memoryNetwork()
        const peer = yield* startProvedFalsePeer(network, "127.0.25.4", behave, smallDigest, largeDigest)
        const { url } = yield* startAsker(network, "127.0.25.3")
        for (const digest of [smallDigest, largeDigest]) {
          assert.strictEqual((yield* get(blobUrl(url, digest))).status, 404)
        }
        assert.strictEqual(peer.requests.length, 2, String(index))
        for (const request of peer.requests) {
          assert.approximately(proofOf(request)?.time ?? 0, Date.now(), 10_000, String(index))
        }
      }
    }))

  it.live("is followed once in a request; then the peer is left", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const peer = yield* startProvedFalsePeer(
        network,
        "127.0.25.4",
        (request) => signedAnswer(request, 404, "{}", { "x-spegel-time": dayAhead() }),
        smallDigest
      )
      const asker = yield* startAsker(network, "127.0.25.3")
      assert.strictEqual((yield* get(blobUrl(asker.url, smallDigest))).status, 404)
      assert.strictEqual(peer.requests.length, 2)
      assert.include(yield* failureAt(asker, smallDigest), "refused the time of a request")
      assert.approximately(proofOf(peer.requests[1] ?? "")?.time ?? 0, Number(dayAhead()), 10_000)
    }))

  it.live("without a time that can be one is no refusal to follow", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const peer = yield* startProvedFalsePeer(
        network,
        "127.0.25.4",
        (request) => signedAnswer(request, 404, "{}", { "x-spegel-time": "soon" }),
        smallDigest
      )
      const { url } = yield* startAsker(network, "127.0.25.3")
      assert.strictEqual((yield* get(blobUrl(url, smallDigest))).status, 404)
      assert.strictEqual(peer.requests.length, 1)
    }))
})

describe("a refusal that names other keys", () => {
  it.live("is followed once in a request, and only to a key that both have", () =>
    Effect.gen(function*() {
      const keys = ringOf(newLine, oldLine)
      const oldId = ringOf(oldLine).current("registry").id
      for (
        const [named, requests] of [
          [oldId, 2],
          [foreignRing.current("registry").id, 1],
          [keys.current("registry").id, 1],
          ["nonsense", 1],
          [Array.from({ length: 17 }, () => oldId).join(" "), 1]
        ] as const
      ) {
        const network = Router.memoryNetwork()
        const peer = yield* startProvedFalsePeer(
          network,
          "127.0.25.4",
          () => response(404, "{}", `x-spegel-keys: ${named}`),
          smallDigest,
          largeDigest
        )
        const { url } = yield* startAsker(network, "127.0.25.3", { auth: auth("prefer", keys) })
        assert.strictEqual((yield* get(blobUrl(url, smallDigest))).status, 404)
        assert.strictEqual(peer.requests.length, requests, named)
        // Nobody has proved that the peer has that key only: the next request is signed with the newest key.
        assert.strictEqual((yield* get(blobUrl(url, largeDigest))).status, 404)
        assert.strictEqual(proofOf(peer.requests[requests] ?? "")?.keyId, keys.current("registry").id)
      }
    }))

  it.live("is not followed for ever by whoever names the other one each time", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const ids = ringOf(newLine, oldLine).ids("registry")
      const peer = yield* startProvedFalsePeer(
        network,
        "127.0.25.4",
        (request) =>
          response(404, "{}", `x-spegel-keys: ${ids.filter((id) => id !== proofOf(request)?.keyId).join(" ")}`),
        smallDigest
      )
      const { url } = yield* startAsker(network, "127.0.25.3", { auth: auth("prefer", ringOf(newLine, oldLine)) })
      assert.strictEqual((yield* get(blobUrl(url, smallDigest))).status, 404)
      assert.deepStrictEqual(peer.requests.map((request) => proofOf(request)?.keyId), [...ids])
    }))

  it.effect("is forgotten after a minute, so that the newest key is used once the peer has it", () =>
    Effect.gen(function*() {
      const memory = new ProofMemory()
      const keys = ringOf(newLine, oldLine)
      const old = ringOf(oldLine).current("registry")
      yield* memory.keyAccepted("peer", old, keys)
      assert.strictEqual((yield* memory.keyFor("peer", keys)).id, old.id)
      assert.strictEqual((yield* memory.keyFor("another", keys)).id, keys.current("registry").id)
      yield* TestClock.adjust("59 seconds")
      // Its use does not make it last longer.
      yield* memory.keyAccepted("peer", old, keys)
      assert.strictEqual((yield* memory.keyFor("peer", keys)).id, old.id)
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* memory.keyFor("peer", keys)).id, keys.current("registry").id)
      yield* memory.keyAccepted("peer", old, keys)
      // The key was dropped meanwhile.
      assert.strictEqual((yield* memory.keyFor("peer", ring)).id, ring.current("registry").id)
      yield* memory.keyAccepted("peer", keys.current("registry"), keys)
      assert.strictEqual((yield* memory.keyFor("peer", keys)).id, keys.current("registry").id)
    }))
})
