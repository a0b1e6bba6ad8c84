/** Which manifest a mirror answers for a tag, by what its peers say. */
import { assert, describe, it } from "@effect/vitest"
import type { PeerAuthMode } from "@spegel-ts/cluster-key/PeerAuth"
import * as Digest from "@spegel-ts/oci/Digest"
import * as MediaType from "@spegel-ts/oci/MediaType"
import * as Outcome from "@spegel-ts/registry/Outcome"
import { type MemoryNetwork, Router } from "@spegel-ts/router/Router"
import { Duration, Effect } from "effect"
import type { Socket } from "node:net"
import { startNode } from "../TestNode.ts"
import { error, get, ns, response, startFalsePeer } from "./FalsePeer.ts"
import { addId, change, inMode, signed } from "./ProvedPeer.ts"

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
})
