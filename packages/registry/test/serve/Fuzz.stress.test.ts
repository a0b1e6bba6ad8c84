import { assert, describe, it } from "@effect/vitest"
import * as Digest from "@spegel-ts/oci/Digest"
import { Router } from "@spegel-ts/router/Router"
import { random } from "@spegel-ts/testing/SeededRandom"
import { Effect } from "effect"
import { connect } from "node:net"
import { startNode } from "../TestNode.ts"

const requests = 20_000

const blob = Buffer.from("a blob that is held")
const digest = Digest.ofBytes(blob)

/** Sends raw bytes on a connection of its own; gives what comes back until the end. */
const exchange = (address: string, port: number, bytes: Buffer): Promise<string> =>
  new Promise((resolve) => {
    let answer = ""
    const socket = connect({ host: address, port })
    socket.on("data", (chunk) => answer += chunk.toString("latin1"))
    socket.on("error", () => resolve(answer))
    socket.on("close", () => resolve(answer))
    socket.setTimeout(5000, () => socket.destroy())
    socket.end(bytes)
  })

describe("Registry", { timeout: 120_000 }, () => {
  it.live(`answers ${requests} malformed requests with the code for it, and lives`, () =>
    Effect.gen(function*() {
      const { address, content, port, url } = yield* startNode(Router.memoryNetwork(), "127.0.0.2")
      yield* content.put(blob)
      const { below, pick } = random(20_261_124)

      const methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get", "G\u00e9T", ""]
      const words = [
        "a",
        "library/nginx",
        "A",
        "..",
        ".",
        "",
        "%2F",
        "%",
        "%zz",
        "%00",
        "\u00e9",
        "a//b",
        "x".repeat(300),
        "_",
        "-a"
      ]
      const lasts = [
        "v1",
        digest,
        digest.slice(0, -1),
        `${digest}0`,
        "sha256:",
        "sha512:abc",
        "md5:abc",
        ".v",
        "v".repeat(200),
        "list",
        "",
        "%25",
        " "
      ]
      const queries = [
        "",
        "?ns=docker.io",
        "?ns=",
        "?ns=a&ns=b",
        "?ns=%",
        "?ns=../..",
        "?n=1",
        "?n=-1",
        "?n=x",
        "?last=%00",
        `?ns=${"a".repeat(9000)}`,
        "??",
        "#f"
      ]
      const ranges = [
        "",
        "bytes=0-",
        "bytes=5-2",
        "bytes=-0",
        "bytes=999-",
        "bytes=0-1,3-4",
        "bytes",
        "items=0-1",
        `bytes=${"9".repeat(40)}-`,
        "bytes=\u00e9"
      ]
      const target = () => {
        const path = `/v2/${pick(words)}/${
          pick(["manifests", "blobs", "tags", "referrers", "uploads", "blobs/uploads"])
        }/${pick(lasts)}`
        return pick([
          path,
          path,
          path,
          `/v2/a/blobs/${digest}`,
          "/v2/",
          "/v2",
          "/",
          "*",
          "//",
          "/v2/\u0000",
          path.slice(0, below(path.length))
        ]) + pick(queries)
      }
      const extra = () =>
        pick([
          "",
          `Range: ${pick(ranges)}\r\n`,
          "X-Spegel-Mirrored: true\r\n",
          "X-Spegel-Mirrored: true\r\nX-Spegel-Mirrored: false\r\n",
          `X-Big: ${"b".repeat(20_000)}\r\n`,
          "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
          "Content-Length: -1\r\n",
          "Authorization: Basic %%%\r\n",
          "broken header\r\n",
          " folded: yes\r\n",
          "Host: other\r\n"
        ])
      const request = () => {
        const head = `${pick(methods)} ${target()} HTTP/${
          pick(["1.1", "1.1", "1.1", "1.0", "2.0", "x"])
        }\r\nHost: h\r\nConnection: close\r\n${extra()}\r\n`
        const bytes = Buffer.from(head)
        // Some are cut off, some have a byte changed anywhere.
        if (below(10) === 0) return bytes.subarray(0, below(bytes.length))
        if (below(10) === 0) bytes[below(bytes.length)] = below(256)
        return bytes
      }

      const seen = new Map<string, number>()
      const check = async () => {
        const bytes = request()
        const answer = await exchange(address, port, bytes)
        const status = /^HTTP\/1\.1 (\d{3})/.exec(answer)?.[1] ?? "none"
        seen.set(status, (seen.get(status) ?? 0) + 1)
        const context = `${bytes.toString("latin1").slice(0, 300)} -> ${answer.slice(0, 300)}`
        // A request that never ended has no answer; everything else has one, and it is never the server's fault.
        if (status === "none") return
        assert.match(status, /^[24]/, context)
        const body = answer.slice(answer.indexOf("\r\n\r\n") + 4)
        const head = bytes.toString("latin1").startsWith("HEAD ")
        if (status.startsWith("4") && !head) {
          const { errors } = JSON.parse(body) as { errors?: Array<{ code: string }> }
          assert.match(errors?.[0]?.code ?? "", /^[A-Z_]+$/, context)
        }
      }
      yield* Effect.promise(async () => {
        for (let sent = 0; sent < requests; sent += 50) await Promise.all(Array.from({ length: 50 }, check))
      })

      for (const status of ["200", "400", "404", "405", "416", "431"]) assert.isAbove(seen.get(status) ?? 0, 0, status)
      const after = yield* Effect.promise(() => fetch(`${url}/v2/any/blobs/${digest}`))
      assert.strictEqual(after.status, 200)
    }))
})
