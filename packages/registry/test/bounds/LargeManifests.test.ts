/** Large manifests, and clients that do not take them, keep nobody from getting small ones. */
import { assert, describe, it } from "@effect/vitest"
import * as Digest from "@spegel-ts/oci/Digest"
import * as MediaType from "@spegel-ts/oci/MediaType"
import { Router } from "@spegel-ts/router/Router"
import { eventually } from "@spegel-ts/testing/Eventually"
import { Duration, Effect } from "effect"
import { connect, type Socket } from "node:net"
import { error, ns, response, startFalsePeer } from "../mirror/FalsePeer.ts"
import { startNode } from "../TestNode.ts"
import { change, get, inMode, signed } from "./ProvedPeer.ts"

const mebibyte = 1024 * 1024
const tagOf = (name: string) => `${ns}/team/app:${name}`
const pathOf = (name: string) => `/v2/team/app/manifests/${name}?ns=${ns}`

/** A manifest of so many bytes. */
const manifestOf = (size: number) => {
  const text = JSON.stringify({ schemaVersion: 2, mediaType: MediaType.imageIndex, manifests: [] })
  return Buffer.from(text + " ".repeat(size - text.length))
}
const answerOf = (manifest: Buffer, asked: string) => {
  const fields = [`content-type: ${MediaType.imageIndex}`, `docker-content-digest: ${Digest.ofBytes(manifest)}`]
  const answer = response(200, manifest, ...fields)
  return asked.startsWith("HEAD") ? answer.subarray(0, answer.indexOf("\r\n\r\n") + 4) : answer
}
const says = (manifest: Buffer) => (socket: Socket, asked: string) => void socket.write(answerOf(manifest, asked))

/** A client that asks for a manifest and takes nothing of it. */
const askAndStall = (node: { readonly address: string; readonly port: number }, name: string) =>
  Effect.acquireRelease(
    Effect.callback<Socket>((resume) => {
      const socket = connect(node.port, node.address, () => {
        socket.pause().write(`GET ${pathOf(name)} HTTP/1.1\r\nhost: x\r\n\r\n`)
        resume(Effect.succeed(socket))
      })
    }),
    (socket) => Effect.sync(() => socket.destroy())
  )

describe("manifests that clients do not take", () => {
  it.live("leave memory for those of usual size, if they are large, and keep no other large one waiting for long", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const [large, small] = [manifestOf(4 * mebibyte), manifestOf(1000)]
      const rogue = yield* startFalsePeer(network, "127.0.0.66", says(large), ...["one", "two", "three"].map(tagOf))
      yield* startFalsePeer(network, "127.0.0.4", says(small), tagOf("small"))
      const node = yield* startNode(network, "127.0.0.3", { answerTimeout: Duration.seconds(3) })
      for (const name of ["one", "two", "three"]) yield* askAndStall(node, name)
      yield* eventually(() => rogue.requests.length === 3)
      for (let turn = 0; turn < 5; turn++) {
        assert.isTrue((yield* get(`${node.url}${pathOf("small")}`)).body.equals(small))
      }
      yield* startFalsePeer(network, "127.0.0.5", says(large), tagOf("large"))
      const begun = performance.now()
      const { body, status } = yield* get(`${node.url}${pathOf("large")}`)
      assert.strictEqual(status, 404)
      assert.include(error(body)?.message ?? "", `sends a manifest of ${large.length} bytes, whose memory others need`)
      assert.isBelow(performance.now() - begun, 2500)
    }))
})

describe("large manifests", () => {
  it.live("of a tag's rivals find memory one after another", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const [good, evil] = [manifestOf(4 * mebibyte), manifestOf(4 * mebibyte + 1)]
      for (const [index, manifest] of [good, good, evil].entries()) {
        const address = `127.0.0.${index + 4}`
        const peer = yield* startFalsePeer(
          network,
          address,
          (socket, asked) => void socket.write(signed(asked, answerOf(manifest, asked))),
          tagOf("v1")
        )
        change(network, peer.id, { proved: true })
      }
      const node = yield* startNode(network, "127.0.0.3", { hedgeDelay: Duration.seconds(10) }).pipe(inMode("require"))
      for (let turn = 0; turn < 3; turn++) {
        const { body, status } = yield* get(`${node.url}${pathOf("v1")}`)
        assert.strictEqual(status, 200)
        assert.isTrue(body.equals(good))
      }
    }))
})
