import { assert, describe, it } from "@effect/vitest"
import { Router } from "@spegel-ts/router/Router"
import { Effect } from "effect"
import { blobFields, blobUrl, signedAnswer, small, smallDigest } from "../auth/ProvedPeers.ts"
import * as FalsePeer from "../mirror/FalsePeer.ts"
import { own, startDownloading } from "./DownloadingNode.ts"
import * as TestDownload from "./TestDownload.ts"

describe("a member that has a small layer, and breaks off in its body each time", () => {
  it.live("is not waited for again and again", () =>
    Effect.gen(function*() {
      const network = Router.memoryNetwork()
      const download = yield* TestDownload.make(smallDigest, small.length)
      download.begin()
      const holder = yield* FalsePeer.startFalsePeer(network, "127.0.29.2", (socket, request) => {
        const answer = signedAnswer(request, 200, small, blobFields)
        const head = answer.indexOf("\r\n\r\n") + 4
        if (request.startsWith("HEAD")) socket.write(answer.subarray(0, head))
        else socket.end(answer.subarray(0, head + 100))
      }, smallDigest)
      const member = network.members.get(holder.id)
      if (member !== undefined) network.members.set(holder.id, { ...member, proved: true })
      const node = yield* startDownloading(network, "127.0.29.3", {
        inProgress: "single-flight",
        ...download.options
      })
      const { status } = yield* FalsePeer.get(blobUrl(node.url, smallDigest), { headers: own })
      assert.strictEqual(status, 404)
      const gets = holder.requests.filter((request) => request.startsWith("GET")).length
      assert.isTrue(gets >= 1 && gets <= 6, `${gets} requests`)
    }))
})
