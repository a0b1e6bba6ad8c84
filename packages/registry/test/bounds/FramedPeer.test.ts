/** Somebody names an honest peer's id together with an address of its own, and sends wrong bytes from there. */
import { assert, describe, it } from "@effect/vitest"
import * as Digest from "@spegel-ts/oci/Digest"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import { type MemoryNetwork, Router } from "@spegel-ts/router/Router"
import { eventually } from "@spegel-ts/testing/Eventually"
import { Effect } from "effect"
import type { Socket } from "node:net"
import { get, honest, ns, startFalsePeer } from "../mirror/FalsePeer.ts"
import { startNode } from "../TestNode.ts"

const bodyOf = (name: string, size: number) => Buffer.alloc(size, name)
const url = (base: string, digest: string) => `${base}/v2/team/app/blobs/${digest}?ns=${ns}`

/** Names the id of a peer at the machine of another one, as the provider of some content. */
const frame = (
  network: MemoryNetwork,
  framed: string,
  liar: string,
  digest: string,
  addresses: ReadonlyArray<string>
) => {
  const { servicePort = 0 } = network.members.get(liar) ?? {}
  network.members.set(`framed ${digest}`, { id: framed, addresses, servicePort })
  network.providers.set(ContentKey.make(digest), new Set([`framed ${digest}`]))
}

/** Held and verified before it is answered; or hashed as it is passed on. */
const sizes = [1000, 5_000_000]

describe("a peer that is framed", () => {
  for (const size of sizes) {
    it.live(`is asked as ever after wrong bytes came in its name, of ${size} bytes`, () =>
      Effect.gen(function*() {
        const network = Router.memoryNetwork()
        const lie = (socket: Socket, asked: string) => socket.write(honest(Buffer.alloc(size, "wrong"), asked))
        const liar = yield* startFalsePeer(network, "127.0.0.66", lie)
        const bodies = ["one", "two", "three", "four"].map((name) => bodyOf(name, size))
        const holder = yield* startFalsePeer(network, "127.0.0.4", (socket, asked) => {
          const body = bodies.find((body) => asked.includes(Digest.ofBytes(body)))
          if (body !== undefined) socket.write(honest(body, asked))
        })
        const node = yield* startNode(network, "127.0.0.3", { verify: "stream" })
        const fetchBlob = (body: Buffer) => Effect.exit(get(url(node.url, Digest.ofBytes(body))))
        for (const body of bodies) {
          // The liar answers first.
          frame(network, holder.id, liar.id, Digest.ofBytes(body), ["127.0.0.66", "127.0.0.4"])
          const answer = yield* fetchBlob(body)
          assert.isFalse(answer._tag === "Success" && answer.value.status === 200 && answer.value.body.equals(body))
        }
        assert.strictEqual(liar.requests.filter((request) => request.startsWith("GET")).length, bodies.length)
        // The warnings went to where the bytes came from.
        const isWarned = (request: string) => /^HEAD .*x-spegel-suspect: true/is.test(request)
        yield* eventually(() => liar.requests.filter(isWarned).length === bodies.length)
        assert.deepStrictEqual(holder.requests, [])
        // The peer itself serves the same content, and all other.
        for (const body of bodies) {
          network.providers.set(ContentKey.make(Digest.ofBytes(body)), new Set([holder.id]))
          const answer = yield* fetchBlob(body)
          assert.isTrue(answer._tag === "Success" && answer.value.body.equals(body))
        }
        // Where it was named with the liar's address, nothing is taken from it.
        const last = bodyOf("last", size)
        frame(network, holder.id, liar.id, Digest.ofBytes(last), ["127.0.0.66"])
        yield* fetchBlob(last)
        assert.strictEqual(liar.requests.filter((request) => request.startsWith("GET")).length, bodies.length)
      }))
  }
})
