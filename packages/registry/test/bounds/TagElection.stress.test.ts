/** Which manifest a mirror answers for a tag, by what its peers say. */
import { assert, describe, it } from "@effect/vitest"
import type { PeerAuthMode } from "@spegel-ts/cluster-key/PeerAuth"
import * as MemoryStore from "@spegel-ts/content/MemoryStore"
import * as Digest from "@spegel-ts/oci/Digest"
import * as DistributionRequest from "@spegel-ts/oci/DistributionRequest"
import * as MediaType from "@spegel-ts/oci/MediaType"
import { PullRecord } from "@spegel-ts/registry/internal/observe/PullRecord"
import * as Mirror from "@spegel-ts/registry/Mirror"
import * as Outcome from "@spegel-ts/registry/Outcome"
import { defaults } from "@spegel-ts/registry/Registry"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import { type MemoryNetwork, Router } from "@spegel-ts/router/Router"
import { PeerTransport } from "@spegel-ts/transfer/PeerTransport"
import { Transfer } from "@spegel-ts/transfer/Transfer"
import { Duration, Effect, Layer, Result, Stream } from "effect"
import type { Socket } from "node:net"
import { error, ns, response, startFalsePeer } from "../mirror/FalsePeer.ts"
import { startNode } from "../TestNode.ts"
import { addId, change, get, inMode, signed } from "./ProvedPeer.ts"

const tag = `${ns}/team/app:v1`
const tagUrl = (url: string) => `${url}/v2/team/app/manifests/v1?ns=${ns}`
const manifestOf = (name: string) =>
  Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MediaType.imageIndex, manifests: [], name }))
const [good, evil, third] = [manifestOf("good"), manifestOf("evil"), manifestOf("third")]
const modes = ["off", "prefer", "require"] as const

/** The answer to GET or HEAD of a manifest; nothing if it is asked for another one by digest. */
const answerOf = (manifest: Buffer, asked: string): Buffer => {
  const digest = Digest.ofBytes(manifest)
  const [, named] = /manifests\/(sha256:\w+)/.exec(asked) ?? []
  if (named !== undefined && named !== digest) return signed(asked, response(404, "{}"))
  const fields = [`content-type: ${MediaType.imageIndex}`, `docker-content-digest: ${digest}`]
  const answer = signed(asked, response(200, manifest, ...fields))
  return asked.startsWith("HEAD") ? answer.subarray(0, answer.indexOf("\r\n\r\n") + 4) : answer
}
const says = (manifest: Buffer) => (socket: Socket, asked: string) => void socket.write(answerOf(manifest, asked))

/** A peer that says what `behave` says of the tag. It is found before those that were started so far. */
const startHolder = Effect.fnUntraced(function*(
  network: MemoryNetwork,
  address: string,
  behave: (socket: Socket, asked: string) => void,
  proved = true
) {
  const peer = yield* startFalsePeer(network, address, behave, tag)
  change(network, peer.id, { proved })
  return peer
})

/** Further ids of the machine of a peer, found before all others. */
const addIds = (network: MemoryNetwork, id: string, count: number) => {
  const { id: _, ...machine } = network.members.get(id) ?? { id, addresses: [], servicePort: 0 }
  for (let index = 0; index < count; index++) addId(network, `${id}-${index}`, tag, machine)
}

/** What a node of a mode answers; the same for HEAD and GET. */
const answerTo = Effect.fnUntraced(
  function*(network: MemoryNetwork, mode: PeerAuthMode, hedgeDelay: Duration.Duration = Duration.seconds(30)) {
    const node = yield* startNode(network, "127.0.0.3", { hedgeDelay }).pipe(inMode(mode))
    const head = yield* get(tagUrl(node.url), { method: "HEAD" })
    const { body, status } = yield* get(tagUrl(node.url))
    assert.strictEqual(head.status, status)
    if (status === 200) assert.strictEqual(head.headers.get("docker-content-digest"), Digest.ofBytes(body))
    return status === 200 ? [good, evil, third].find((manifest) => manifest.equals(body)) : error(body)?.message
  }
)

describe("the election of a tag", () => {
  it.live("answers as most addresses say, whoever is asked first", () =>
    Effect.gen(function*() {
      for (const mode of modes) {
        for (const order of [[evil, good, good], [good, evil, good], [good, good, evil]]) {
          const network = Router.memoryNetwork()
          for (const [index, manifest] of order.entries()) {
            yield* startHolder(network, `127.0.0.${index + 4}`, says(manifest))
          }
          assert.strictEqual(yield* answerTo(network, mode), good)
        }
      }
    }))

  it.live("is not changed by one address with sixteen ids where three addresses hold the tag", () =>
    Effect.gen(function*() {
      for (const mode of modes) {
        const network = Router.memoryNetwork()
        const honest = yield* Effect.forEach(
          [4, 5, 6],
          (last) => startHolder(network, `127.0.0.${last}`, says(good))
        )
        const liar = yield* startHolder(network, "127.0.0.66", says(evil))
        addIds(network, liar.id, 15)
        const node = yield* startNode(network, "127.0.0.3", { hedgeDelay: Duration.seconds(30) }).pipe(inMode(mode))
        for (let turn = 0; turn < 10; turn++) {
          assert.isTrue((yield* get(tagUrl(node.url))).body.equals(good), `${mode} ${turn}`)
        }
        assert.isAbove(liar.requests.length, 0)
        // Nobody honest is blamed: an objection would defer it.
        const ids = new Set(honest.map(({ id }) => id))
        const outcomes = (yield* node.log.recent).flatMap(({ attempts }) =>
          attempts.filter(({ peer }) => ids.has(peer)).map(({ outcome }) => outcome._tag)
        )
        assert.isAtLeast(outcomes.length, 20)
        assert.deepStrictEqual(outcomes.filter((tag) => tag !== "Served" && tag !== "SlowerThanAnother"), [])
      }
    }))

  it.live("is not changed by ids that one machine names at made-up addresses, or at those of honest peers", () =>
    Effect.gen(function*() {
      for (const mode of ["prefer", "require"] as const) {
        for (
          const madeUp of [
            (index: number) => [`127.0.1.${index}`],
            (index: number) => [`127.0.0.${4 + index % 3}`],
            (index: number) => [`127.0.1.${index}`, "127.0.0.66"]
          ]
        ) {
          const network = Router.memoryNetwork()
          for (const last of [4, 5, 6]) yield* startHolder(network, `127.0.0.${last}`, says(good))
          const liar = yield* startHolder(network, "127.0.0.66", says(evil))
          const { servicePort = 0 } = network.members.get(liar.id) ?? {}
          // Nothing listens at the first address of each.
          for (let index = 0; index < 15; index++) {
            addId(network, `made up ${index}`, tag, { addresses: madeUp(index), servicePort, proved: true })
          }
          // The third that is asked answers.
          const key = ContentKey.make(tag)
          const [first = "", second = "", ...others] = [...network.providers.get(key) ?? []]
          network.providers.set(key, new Set([first, second, liar.id, ...others]))
          const node = yield* startNode(network, "127.0.0.3", { hedgeDelay: Duration.seconds(30) }).pipe(inMode(mode))
          const answers = yield* Effect.forEach(Array.from({ length: 20 }), () => get(tagUrl(node.url)))
          // At first, those are asked that are not there.
          assert.isEmpty(answers.filter(({ body, status }) => status === 200 && !body.equals(good)))
          assert.isTrue(answers.at(-1)?.body.equals(good), String(answers.at(-1)?.body))
        }
      }
    }))

  it.live("hears those that were busy a moment ago, if there is a key: they are not kept from voting", () =>
    Effect.gen(function*() {
      for (const mode of modes) {
        const network = Router.memoryNetwork()
        const busy = Buffer.from("asked for while they are busy")
        for (const last of [4, 5]) {
          const answers = (socket: Socket, asked: string) =>
            void socket.write(
              asked.includes("/blobs/")
                ? signed(asked, response(503, "{}", "retry-after: 30"))
                : answerOf(good, asked)
            )
          const peer = yield* startHolder(network, `127.0.0.${last}`, answers)
          const key = ContentKey.make(Digest.ofBytes(busy))
          network.providers.set(key, new Set([...network.providers.get(key) ?? [], peer.id]))
        }
        yield* startHolder(network, "127.0.0.66", says(evil))
        const node = yield* startNode(network, "127.0.0.3", { hedgeDelay: Duration.seconds(30) }).pipe(inMode(mode))
        const blob = yield* get(`${node.url}/v2/team/app/blobs/${Digest.ofBytes(busy)}?ns=${ns}`)
        assert.strictEqual(blob.status, 404)
        const { body } = yield* get(tagUrl(node.url))
        assert.isTrue(body.equals(mode === "off" ? evil : good), mode)
      }
    }))

  it.live("leaves ties to upstream, of two manifests or three", () =>
    Effect.gen(function*() {
      for (const mode of modes) {
        for (const manifests of [[good, evil], [evil, good], [good, evil, third]]) {
          const network = Router.memoryNetwork()
          for (const [index, manifest] of manifests.entries()) {
            yield* startHolder(network, `127.0.0.${index + 4}`, says(manifest))
          }
          assert.match(
            String(yield* answerTo(network, mode)),
            /no peer's word is taken for registry\.example\/team\/app:v1: peers disagree \(1 say .*containerd continues/
          )
        }
      }
    }))

  it.live("takes the word of a lone holder that proved itself, or of any where nobody does", () =>
    Effect.gen(function*() {
      for (
        const [mode, proved, expected] of [
          ["off", false, good],
          ["prefer", true, good],
          ["require", true, good],
          ["prefer", false, "only a peer says so that has not proved itself"]
        ] as const
      ) {
        const network = Router.memoryNetwork()
        const holder = yield* startHolder(network, "127.0.0.4", says(good), proved)
        addIds(network, holder.id, 3)
        const answer = yield* answerTo(network, mode)
        if (typeof expected === "string") assert.include(String(answer), expected)
        else assert.strictEqual(answer, expected)
      }
    }))

  it.live("hears a holder that proved itself, however many others are found before it", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      yield* startHolder(network, "127.0.0.4", says(good))
      for (let last = 60; last < 80; last++) yield* startHolder(network, `127.0.0.${last}`, says(evil), false)
      assert.strictEqual(yield* answerTo(network, "prefer"), good)
      // Where nobody proves anything, they are the most.
      assert.strictEqual(yield* answerTo(network, "off"), evil)
    }))

  it.live("resolves a new tag of one holder beside a machine that is silent, or that has it not", () =>
    Effect.gen(function*() {
      for (
        const behave of [() => {}, (socket: Socket, asked: string) => {
          socket.write(signed(asked, response(404, "{}")))
        }]
      ) {
        const network = Router.memoryNetwork()
        const silent = yield* startHolder(network, "127.0.0.66", behave)
        yield* startHolder(network, "127.0.0.4", says(good))
        addIds(network, silent.id, 1)
        for (const mode of modes) assert.strictEqual(yield* answerTo(network, mode, Duration.millis(300)), good)
      }
    }))

  it.live("believes no machine that answers first while two others are silent, if there is a key", () =>
    Effect.gen(function*() {
      const slow = (socket: Socket, asked: string) => {
        setTimeout(() => socket.destroyed || socket.write(answerOf(good, asked)), 2000)
      }
      for (const mode of modes) {
        const network = Router.memoryNetwork()
        for (const last of [4, 5]) yield* startHolder(network, `127.0.0.${last}`, slow)
        yield* startHolder(network, "127.0.0.66", says(evil))
        const answer = yield* answerTo(network, mode, Duration.millis(200))
        if (mode === "off") assert.strictEqual(answer, evil)
        else assert.include(String(answer), "and 2 did not answer in time")
      }
    }))

  it.live("answers no manifest that was outvoted if the one that was chosen does not come, if there is a key", () =>
    Effect.gen(function*() {
      const stalls = (socket: Socket, asked: string) => {
        if (asked.startsWith("HEAD")) socket.write(answerOf(good, asked))
      }
      for (const mode of modes) {
        const network = Router.memoryNetwork()
        for (const last of [4, 5]) yield* startHolder(network, `127.0.0.${last}`, stalls)
        yield* startHolder(network, "127.0.0.66", says(evil))
        const answer = yield* answerTo(network, mode, Duration.millis(200))
        if (mode === "off") assert.strictEqual(answer, evil)
        else assert.include(String(answer), `most say ${Digest.ofBytes(good)}, and none of them gave it within 200 ms`)
      }
    }))

  it.live("is not held up by a machine that agrees with the most and gives nothing", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      yield* startHolder(network, "127.0.0.4", says(good))
      yield* startHolder(network, "127.0.0.66", (socket, asked) => {
        if (asked.startsWith("HEAD")) socket.write(answerOf(good, asked))
      })
      // It has the tag as it was, and is asked first.
      yield* startHolder(network, "127.0.0.5", says(evil))
      const node = yield* startNode(network, "127.0.0.3", { hedgeDelay: Duration.millis(500) }).pipe(inMode("require"))
      const { body } = yield* get(tagUrl(node.url))
      assert.isTrue(body.equals(good))
      const [event] = yield* node.log.recent
      assert.notInclude(event?.attempts.map(({ outcome }) => Outcome.print(outcome)).join() ?? "", "wrong")
    }))

  it.live("fetches the manifest that was chosen once from each address, whatever number of peers it is", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const holders = yield* Effect.forEach(
        [4, 5],
        (last) => startHolder(network, `127.0.0.${last}`, says(good))
      )
      for (const [index, { id }] of holders.entries()) {
        const { addresses: [address = ""], servicePort = 0 } = network.members.get(id) ?? { addresses: [] }
        addId(network, `more ${index}`, tag, { addresses: [`127.0.1.${index}`, address], servicePort, proved: true })
      }
      // It is asked first.
      yield* startHolder(network, "127.0.0.66", says(evil))
      const node = yield* startNode(network, "127.0.0.3", {
        hedgeDelay: Duration.seconds(30),
        resolveRetries: 5
      }).pipe(inMode("require"))
      assert.isTrue((yield* get(tagUrl(node.url))).body.equals(good))
      for (const { requests } of holders) {
        assert.isAtMost(requests.filter((request) => request.startsWith("GET")).length, 1)
      }
      assert.isAtLeast(holders.flatMap(({ requests }) => requests).length, 4)
    }))

  it.live("counts a peer by the one of its addresses that answers", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      yield* startHolder(network, "127.0.0.4", says(good))
      const liar = yield* startHolder(network, "127.0.0.66", says(evil))
      const { servicePort = 0 } = network.members.get(liar.id) ?? {}
      // It names addresses where nobody answers, or that are another spelling of its own.
      for (const [index, addresses] of [["127.0.0.70", "127.0.0.66"], ["::ffff:127.0.0.66"]].entries()) {
        addId(network, `liar-${index}`, tag, { addresses, servicePort, proved: true })
      }
      assert.include(String(yield* answerTo(network, "require")), "peers disagree (1 say")
    }))

  it.live("hears those that are found a moment after a machine that is found and answers first, if there is a key", () =>
    Effect.gen(function*() {
      for (const mode of modes) {
        const network = Router.memoryNetwork()
        for (const last of [4, 5]) yield* startHolder(network, `127.0.0.${last}`, says(good))
        const liar = yield* startHolder(network, "127.0.0.66", says(evil))
        addIds(network, liar.id, 3)
        /** Names the liar's peers at once, and others when the first manifest was read. */
        const slowly = Layer.effect(
          Router,
          Effect.map(Router, (router) => ({
            ...router,
            lookup: (...asked: Parameters<typeof router.lookup>) =>
              router.lookup(...asked).pipe(
                Stream.mapEffect((peer) =>
                  peer.addresses[0] === "127.0.0.66" ? Effect.succeed(peer) : Effect.delay(Effect.succeed(peer), 100)
                )
              )
          }))
        ).pipe(Layer.provide(Router.layerMemory({
          network,
          self: { id: "self", addresses: ["127.0.0.3"], servicePort: 1 }
        })))
        const layer = Layer.mergeAll(
          slowly,
          MemoryStore.layer,
          PeerTransport.layer({ stallTimeout: Duration.seconds(30), minPeerSpeed: 0 }).pipe(
            Layer.provide(Transfer.layerPortable)
          )
        )
        const mirror = yield* Mirror.make({ ...defaults, hedgeDelay: Duration.seconds(10) }).pipe(
          Effect.provide(yield* Layer.build(layer)),
          inMode(mode)
        )
        const request = Result.getOrThrow(DistributionRequest.parse({ method: "GET", url: tagUrl(""), headers: {} }))
        if (request._tag !== "Manifest") return assert.fail("not a manifest")
        const name = { registry: ns, repository: "team/app", tag: "v1" }
        const { digest } = yield* mirror.fetch({
          request,
          name,
          record: new PullRecord(),
          userAgent: "test",
          own: false
        })
        assert.strictEqual(digest, Digest.ofBytes(mode === "off" ? evil : good), mode)
      }
    }))
})
