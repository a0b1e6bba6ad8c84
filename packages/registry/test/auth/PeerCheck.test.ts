import { assert, describe, it } from "@effect/vitest"
import * as ClientToken from "@spegel-ts/cluster-key/ClientToken"
import * as Digest from "@spegel-ts/oci/Digest"
import * as MediaType from "@spegel-ts/oci/MediaType"
import * as Reference from "@spegel-ts/oci/Reference"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import { type MemoryNetwork, Router } from "@spegel-ts/router/Router"
import { ringOf } from "@spegel-ts/testing/ClusterKeys"
import { eventually } from "@spegel-ts/testing/Eventually"
import { Effect, Result } from "effect"
import { writeFile } from "node:fs/promises"
import * as FileNode from "../FileNode.ts"
import { error, get, ns } from "../mirror/FalsePeer.ts"
import * as RawClient from "../RawClient.ts"
import { untilRecorded } from "../Recorded.ts"
import { startNode } from "../TestNode.ts"
import { auth, changing, counted, failures, foreignRing, isProved, newLine, oldLine, ring, signed } from "./Keys.ts"

const blob = Buffer.from("a layer ".repeat(100))
const digest = Digest.ofBytes(blob)
const target = `/v2/team/app/blobs/${digest}?ns=${ns}`
const absent = `/v2/team/app/blobs/${Digest.ofBytes(Buffer.from("absent"))}?ns=${ns}`
const manifest = Buffer.from(
  JSON.stringify({ schemaVersion: 2, mediaType: MediaType.imageManifest, layers: [], config: {} })
)
const tagTarget = `/v2/team/app/manifests/v1?ns=${ns}`

/** A node that holds a layer and a tag, and answers only what proves itself. */
const start = Effect.fnUntraced(function*(
  options: Parameters<typeof startNode>[2] = {},
  network: MemoryNetwork = Router.memoryNetwork(),
  address = "127.0.24.2"
) {
  const node = yield* startNode(network, address, { auth: auth("require"), ...options })
  yield* Effect.forEach([blob, manifest], node.content.put)
  yield* node.content.tag(Result.getOrThrow(Reference.parse(`${ns}/team/app:v1`)), Digest.ofBytes(manifest))
  const ask = (path: string, headers: Record<string, string>, method = "GET") =>
    get(node.url + path, { headers, method })
  return { ...node, ask }
})

const minutes = (count: number) => count * 60_000

describe("a peer's request", () => {
  it.live("is answered if its proof is right, and every answer is proved", () =>
    Effect.gen(function*() {
      const { ask, id } = yield* start()
      const small = { range: "bytes=0-9" }
      const cases: ReadonlyArray<readonly [string, string, Record<string, string>, number]> = [
        ["GET", target, {}, 200],
        ["HEAD", target, {}, 200],
        ["GET", tagTarget, {}, 200],
        ["HEAD", tagTarget, {}, 200],
        ["GET", target, small, 206],
        ["GET", target, { range: "bytes=100000-" }, 416],
        ["GET", absent, {}, 404],
        ["HEAD", absent, {}, 404],
        ["GET", `/v2/team/app/tags/list?ns=${ns}`, {}, 200],
        ["GET", "/v2/", {}, 200],
        ["GET", "/v2/team/app/blobs/sha256:short", {}, 400],
        ["DELETE", target, {}, 405]
      ]
      const before = yield* counted("spegel_client_auth_total", { client: "peer", key: "current" })
      for (const [method, path, headers, status] of cases) {
        const { expected, headers: proof } = signed({ receiver: id, target: path, method, range: headers["range"] })
        const answer = yield* ask(path, { ...headers, ...proof }, method)
        assert.strictEqual(answer.status, status, `${method} ${path}`)
        assert.isTrue(isProved(expected, answer), `${method} ${path}`)
        // Neither for another status nor for another request.
        assert.isFalse(isProved(expected, { ...answer, status: status + 1 }))
        assert.isFalse(isProved(signed({ receiver: id, target: path }).expected, answer))
      }
      const after = yield* counted("spegel_client_auth_total", { client: "peer", key: "current" })
      assert.strictEqual(after - before, cases.length)
    }))

  it.live("is refused at another receiver, for another target, method or range, and as a complaint", () =>
    Effect.gen(function*() {
      const { ask, id, log } = yield* start()
      const proof = (change: Partial<Parameters<typeof signed>[0]> = {}) =>
        signed({ receiver: id, target, ...change }).headers
      const before = yield* failures("bad_signature")
      const replays = [
        ask(target, proof({ receiver: "another-node" })),
        ask(tagTarget, proof()),
        ask(target.replace(ns, "other.example"), proof()),
        ask(target, proof(), "HEAD"),
        ask(target, { ...proof(), range: "bytes=0-9" }),
        ask(target, proof({ range: "bytes=0-9" })),
        ask(target, { ...proof({ range: "bytes=0-9" }), range: "bytes=0-8" }),
        ask(target, { ...proof(), "x-spegel-suspect": "true" }),
        // Signed with a key that only has the same id.
        ask(target, {
          ...proof(),
          "x-spegel-auth": signed({ receiver: id, target, ring: foreignRing }).headers["x-spegel-auth"].replace(
            foreignRing.current("registry").id,
            ring.current("registry").id
          )
        })
      ]
      for (const [index, replay] of replays.entries()) {
        const answer = yield* replay
        assert.strictEqual(answer.status, 404, String(index))
        assert.isNull(answer.headers.get("x-spegel-auth"))
        assert.isNull(answer.headers.get("x-spegel-time"))
        assert.isNull(answer.headers.get("docker-content-digest"))
        if (answer.body.length > 0) assert.include(error(answer.body).message, "the proof of the cluster key is wrong")
      }
      assert.strictEqual((yield* failures("bad_signature")) - before, replays.length)
      assert.strictEqual((yield* ask(target, proof())).status, 200)
      // Strangers are not among the last pulls.
      assert.strictEqual((yield* untilRecorded(log, 1)).length, 1)
    }))

  it.live("with a wrong time is told the right one, but only if its signature is right", () =>
    Effect.gen(function*() {
      const { ask, id } = yield* start()
      for (const ahead of [minutes(6), minutes(-6), minutes(1440), minutes(-1440)]) {
        for (const path of [target, absent]) {
          const { expected, headers } = signed({ receiver: id, target: path, ahead })
          const answer = yield* ask(path, headers)
          assert.strictEqual(answer.status, 404)
          assert.isTrue(isProved(expected, answer))
          assert.approximately(Number(answer.headers.get("x-spegel-time")), Date.now(), 10_000)
          assert.include(error(answer.body).message, "by more than 5 minutes")
        }
        for (const wrong of [{ receiver: "another" }, { ring: foreignRing }]) {
          const answer = yield* ask(target, signed({ receiver: id, target, ahead, ...wrong }).headers)
          assert.strictEqual(answer.status, 404)
          for (const name of ["x-spegel-time", "x-spegel-auth"]) assert.isNull(answer.headers.get(name))
        }
      }
      for (const ahead of [minutes(4), minutes(-4)]) {
        assert.strictEqual((yield* ask(target, signed({ receiver: id, target, ahead }).headers)).status, 200)
      }
    }))

  it.live("with an unknown key is told which keys are accepted", () =>
    Effect.gen(function*() {
      const keys = ringOf(newLine, oldLine)
      const { ask, id } = yield* start({ auth: auth("require", keys) })
      const answer = yield* ask(target, signed({ receiver: id, target, ring: foreignRing }).headers)
      assert.strictEqual(answer.status, 404)
      assert.strictEqual(answer.headers.get("x-spegel-keys"), keys.ids("registry").join(" "))
      assert.isNull(answer.headers.get("x-spegel-auth"))
      assert.include(error(answer.body).message, "give both mirrors the same keys")
    }))

  it.live("with an old key is answered until that key is dropped", () =>
    Effect.gen(function*() {
      const keys = changing("require", ringOf(newLine, oldLine))
      const { ask, id } = yield* start({ auth: keys.auth })
      const old = () => signed({ receiver: id, target, ring: ringOf(oldLine) })
      const before = yield* counted("spegel_client_auth_total", { client: "peer", key: "old" })
      const { expected, headers } = old()
      const answer = yield* ask(target, headers)
      assert.strictEqual(answer.status, 200)
      assert.isTrue(isProved(expected, answer))
      assert.strictEqual((yield* counted("spegel_client_auth_total", { client: "peer", key: "old" })) - before, 1)
      keys.replace(ringOf(newLine))
      assert.strictEqual((yield* ask(target, old().headers)).status, 404)
    }))

  it.live("without a proof is told nothing where peers have to prove themselves", () =>
    Effect.gen(function*() {
      const { ask } = yield* start()
      const before = yield* failures("unproved")
      const messages = new Set<string>()
      for (const path of [target, absent]) {
        for (
          const headers of [{}, { range: "bytes=0-1" }, { range: "bytes=999999-" }, { "x-spegel-suspect": "true" }]
        ) {
          const answer = yield* ask(path, { "x-spegel-mirrored": "true", ...headers })
          assert.strictEqual(answer.status, 404)
          assert.isNull(answer.headers.get("x-spegel-auth"))
          messages.add(error(answer.body).message)
        }
      }
      assert.strictEqual(messages.size, 1)
      assert.include([...messages].join(), "give your mirror the cluster key")
      assert.strictEqual((yield* failures("unproved")) - before, 8)
      for (const malformed of ["", "v1", "v1 x y z", "Bearer x"]) {
        assert.strictEqual((yield* ask(target, { "x-spegel-auth": malformed })).status, 404)
      }
    }))

  it.live("without a proof is answered, and counted, where they need not; a wrong proof is refused there too", () =>
    Effect.gen(function*() {
      const { ask, id } = yield* start({ auth: auth("prefer") })
      const before = yield* counted("spegel_client_auth_total", { client: "unproved_peer", key: "none" })
      const plain = yield* ask(target, { "x-spegel-mirrored": "true" })
      assert.strictEqual(plain.status, 200)
      assert.isNull(plain.headers.get("x-spegel-auth"))
      assert.strictEqual(
        (yield* counted("spegel_client_auth_total", { client: "unproved_peer", key: "none" })) - before,
        1
      )
      const { expected, headers } = signed({ receiver: id, target })
      assert.isTrue(isProved(expected, yield* ask(target, headers)))
      assert.strictEqual((yield* ask(target, signed({ receiver: "another", target }).headers)).status, 404)
    }))

  it.live("whose proof is right is never passed on to further peers", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const holder = yield* start({ proved: true }, network)
      yield* holder.router.advertise([ContentKey.make(digest)])
      const node = yield* startNode(network, "127.0.24.3", { auth: auth("require") })
      const { headers } = signed({ receiver: node.id, target })
      // Somebody on the way has removed the header that says that a peer asks.
      const answer = yield* get(node.url + target, { headers: { "x-spegel-auth": headers["x-spegel-auth"] } })
      assert.strictEqual(answer.status, 404)
      const [event] = yield* untilRecorded(node.log, 1)
      assert.deepStrictEqual([event?.mirrored, event?.peersSeen], [true, 0])
    }))

  it.live("beyond the bound of uploads gets a refusal that is proved", () =>
    Effect.gen(function*() {
      const large = Buffer.alloc(48 * 1024 * 1024, "upload")
      const node = yield* start({ maxUploadsPerPeer: 1 })
      yield* node.content.put(large)
      const path = `/v2/team/app/blobs/${Digest.ofBytes(large)}?ns=${ns}`
      const first = signed({ receiver: node.id, target: path }).headers
      const fields = Object.entries(first).map(([name, value]) => `${name}: ${value}`)
      const reading = yield* RawClient.open({ host: node.address, port: node.port }, path, fields)
      assert.strictEqual((yield* Effect.promise(() => reading.head)).status, 200)
      const { expected, headers } = signed({ receiver: node.id, target: path })
      const answer = yield* node.ask(path, headers)
      assert.strictEqual(answer.status, 503)
      assert.isTrue(isProved(expected, answer))
    }))

  it.live("is answered without a proof where nobody proves anything", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const node = yield* startNode(network, "127.0.24.2")
      yield* node.content.put(blob)
      const answer = yield* get(node.url + target, { headers: signed({ receiver: "anybody", target }).headers })
      assert.strictEqual(answer.status, 200)
      assert.isNull(answer.headers.get("x-spegel-auth"))
    }))
})

describe("a warning of a damaged blob", () => {
  it.live("is heard from peers that prove themselves, and from nobody else", () =>
    Effect.gen(function*() {
      const node = yield* FileNode.start(Router.memoryNetwork(), "127.0.24.3", [1000], { auth: auth("require") })
      const [{ bytes, file, path } = yield* Effect.die("no blob")] = node.blobs
      const ask = (headers: Record<string, string>, method = "GET") =>
        get(`http://${node.address}:${node.port}${path}`, { headers, method })
      const asPeer = () => signed({ receiver: node.self.id, target: path }).headers
      const suspect = { "x-spegel-suspect": "true" }
      yield* Effect.promise(() => writeFile(file, Buffer.alloc(bytes.length, "x")))
      const token = { authorization: `Bearer ${ClientToken.make(ring, "another")}`, "x-spegel-mirrored": "true" }
      assert.strictEqual((yield* ask({ ...token, ...suspect }, "HEAD")).status, 200)
      yield* Effect.sleep("100 millis")
      assert.strictEqual((yield* ask(asPeer())).status, 200)
      yield* ask({
        ...signed({ receiver: node.self.id, target: path, method: "HEAD", said: ["x-spegel-suspect", "true"] }).headers,
        ...suspect
      }, "HEAD")
      yield* eventually(Effect.map(Effect.suspend(() => ask(asPeer())), ({ status }) => status === 404))
    }))
})
