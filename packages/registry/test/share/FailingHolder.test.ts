import { assert, describe, it } from "@effect/vitest"
import { Router } from "@spegel-ts/router/Router"
import { Effect } from "effect"
import { blobFields, blobUrl, signedAnswer, small, smallDigest } from "../auth/ProvedPeers.ts"
import * as FalsePeer from "../mirror/FalsePeer.ts"
import { own, startDownloading } from "./DownloadingNode.ts"
import * as TestDownload from "./TestDownload.ts"

/** A pull of a small layer from a member that answers HEAD, and sends this in place of the layer. */
const pullFrom = Effect.fnUntraced(function*(sends: (answer: Buffer, head: number) => Buffer) {
  const network = Router.memoryNetwork()
  const download = yield* TestDownload.make(smallDigest, small.length)
  download.begin()
  const holder = yield* FalsePeer.startFalsePeer(network, "127.0.29.2", (socket, request) => {
    const answer = signedAnswer(request, 200, small, blobFields)
    const head = answer.indexOf("\r\n\r\n") + 4
    if (request.startsWith("HEAD")) socket.write(answer.subarray(0, head))
    else socket.end(sends(answer, head))
  }, smallDigest)
  const member = network.members.get(holder.id)
  if (member !== undefined) network.members.set(holder.id, { ...member, proved: true })
  const node = yield* startDownloading(network, "127.0.29.3", { inProgress: "single-flight", ...download.options })
  const { status } = yield* FalsePeer.get(blobUrl(node.url, smallDigest), { headers: own })
  return { status, gets: holder.requests.filter((request) => request.startsWith("GET")).length }
})

describe("a member that says that it has a small layer", () => {
  it.live("is not waited for again and again if it breaks off in its body each time", () =>
    Effect.gen(function*() {
      const { gets, status } = yield* pullFrom((answer, head) => answer.subarray(0, head + 100))
      assert.strictEqual(status, 404)
      assert.isTrue(gets >= 1 && gets <= 6, `${gets} requests`)
    }))

  it.live("is not asked again once it has sent wrong bytes", () =>
    Effect.gen(function*() {
      const pulled = yield* pullFrom((answer, head) =>
        Buffer.concat([answer.subarray(0, head), Buffer.alloc(small.length)])
      )
      assert.deepStrictEqual(pulled, { status: 404, gets: 1 })
    }))
})
