import { assert, describe, it } from "@effect/vitest"
import * as Digest from "@spegel-ts/oci/Digest"
import * as MemoryRouter from "@spegel-ts/router/MemoryRouter"
import { Effect } from "effect"
import { connect } from "node:net"
import { startNode } from "../TestNode.ts"

const blob = Buffer.from("0123456789")
const path = `/v2/team/app/blobs/${Digest.ofBytes(blob)}?ns=registry.example`
const tags = "GET /v2/team/app/tags/list?ns=registry.example HTTP/1.1\r\nHost: b\r\n\r\n"
const ping = "GET /v2/ HTTP/1.1\r\n"
const host = "Host: a\r\n"
const get = (target: string, fields = "", version = "HTTP/1.1") => `GET ${target} ${version}\r\n${host}${fields}\r\n`

/** Sends bytes on one connection and closes its half, so that the answers have an end; returns these. */
const exchange = (node: { readonly address: string; readonly port: number }, bytes: string) =>
  Effect.callback<string>((resume) => {
    const socket = connect({ host: node.address, port: node.port })
    let answer = ""
    socket.on("data", (chunk: Buffer) => answer += chunk.toString("latin1"))
    socket.on("error", () => {}).on("close", () => resume(Effect.succeed(answer)))
    socket.end(bytes, "latin1")
    return Effect.sync(() => socket.destroy())
  })

const statuses = (answer: string): ReadonlyArray<number> =>
  [...answer.matchAll(/HTTP\/1\.1 (\d{3})/g)].map(([, status]) => Number(status))

/** Bytes to send, and the statuses of the answers to them, in order. */
const table: ReadonlyArray<readonly [name: string, bytes: string, ...answers: ReadonlyArray<number>]> = [
  ["a path", get("/v2/"), 200],
  ["an empty line before", `\r\n${get("/v2/")}`, 200],
  ["HTTP/1.0 without a host", "GET /v2/ HTTP/1.0\r\n\r\n", 200],
  ["no host", `${ping}\r\n`, 400],
  ["two hosts", `${ping}${host}Host: b\r\n\r\n`, 400],
  ["the same host twice", `${ping}${host}${host}\r\n`, 400],
  ["two hosts in HTTP/1.0", `GET /v2/ HTTP/1.0\r\n${host}hOST: b\r\n\r\n`, 400],
  ["an empty host", `${ping}Host:\r\n\r\n`, 200],
  ["an IPv6 host", `${ping}Host: [fd00::1]:5000\r\n\r\n`, 200],
  ["a host with a path", `${ping}Host: a/b\r\n\r\n`, 400],
  ["a host with a space", `${ping}Host: a b\r\n\r\n`, 400],
  ["a host with a user", `${ping}Host: user@a\r\n\r\n`, 400],
  ["a host with a word for a port", `${ping}Host: a:http\r\n\r\n`, 400],

  ["an absolute target", get("http://mirror:5000/v2/"), 200],
  ["an absolute target of another scheme and case", get("HTTPS://MIRROR/v2/"), 200],
  ["an absolute target with a query", get(`http://mirror${path}`), 200],
  ["an absolute target, a probe", get("http://[::1]:5000/livez"), 200],
  ["an absolute target elsewhere", get("http://169.254.169.254/latest/"), 404],
  ["an absolute target without a path", get("http://mirror"), 404],
  ["an absolute target with a query for a path", get("http://mirror?ns=a"), 404],
  ["an absolute target without an authority", get("http:///v2/"), 400],
  ["an absolute target with a user", get("http://a:b@mirror/v2/"), 400],
  ["an absolute target of a scheme unknown", get("ftp://mirror/v2/"), 400],
  ["an absolute target and no host", "GET http://mirror/v2/ HTTP/1.1\r\n\r\n", 400],
  ["an authority", get("mirror:5000"), 400],
  ["an asterisk", `OPTIONS * HTTP/1.1\r\n${host}\r\n`, 405],
  ["an asterisk for GET", get("*"), 405],
  ["a tunnel", `CONNECT 169.254.169.254:80 HTTP/1.1\r\n${host}\r\n`, 405],
  ["two slashes", get("//v2/"), 404],
  ["dots", get("/v2/../v2/"), 404],
  ["a slash as an escape", get(path.replace("team/app", "team%2Fapp")), 200],
  ["a broken escape", get("/v2/%"), 400],
  ["a long target", get(`/v2/${"a".repeat(9000)}`), 414],
  ["long fields", get("/v2/", `X: ${"a".repeat(20_000)}\r\n`), 431],
  ["two spaces", `GET  /v2/ HTTP/1.1\r\n${host}\r\n`, 200],
  ["another method", `TRACE /v2/ HTTP/1.1\r\n${host}\r\n`, 405],

  ["a body that is a request", `${ping}${host}Content-Length: ${tags.length}\r\n\r\n${tags}${get("/v2/")}`, 200, 200],
  ["two lengths", get("/v2/", "Content-Length: 0\r\nContent-Length: 5\r\n"), 400],
  ["a length and chunks", get("/v2/", "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n") + `0\r\n\r\n${tags}`, 400],
  ["a negative length", get("/v2/", "Content-Length: -1\r\n"), 400],
  ["chunks", `${get("/v2/", "Transfer-Encoding: chunked\r\n")}5\r\nabcde\r\n0\r\n\r\n${get("/v2/")}`, 200, 200],
  ["chunks with a coding before", `${get("/v2/", "Transfer-Encoding: gzip, chunked\r\n")}0\r\n\r\n`, 200],
  ["chunks in HTTP/1.0", `${get("/v2/", "Transfer-Encoding: chunked\r\n", "HTTP/1.0")}0\r\n\r\n${tags}`, 400],
  ["a coding unknown", `${get("/v2/", "Transfer-Encoding: xchunked\r\n")}0\r\n\r\n${tags}`, 400],
  ["a coding after chunks", get("/v2/", "Transfer-Encoding: chunked, identity\r\n") + `0\r\n\r\n${tags}`, 400],
  ["a chunk's size too large", `${get("/v2/", "Transfer-Encoding: chunked\r\n")}fffffffffffffffff\r\nabc`, 200],
  ["a line end in a chunk's extension", `${get("/v2/", "Transfer-Encoding: chunked\r\n")}5;e="\n"\r\nabcde\r\n`, 200],
  ["a folded field", get("/v2/", "X: a\r\n b\r\n"), 400],
  ["a space before a colon", get("/v2/", "X : a\r\n"), 400],
  ["a zero byte", get("/v2/", "X: a\0b\r\n"), 400],
  ["a bare line end", `GET /v2/ HTTP/1.1\n${host}\n`, 400],
  ["another version", get("/v2/", "", "HTTP/3.1"), 400],
  ["something after a request", `${get("/v2/")}GET / HTTP/9\r\n\r\n${tags}`, 200],
  ["an upgrade", get("/v2/", "Connection: Upgrade\r\nUpgrade: h2c\r\n"), 200],
  ["an expectation unknown", get("/v2/", "Expect: a-miracle\r\n"), 417],

  ["a range", get(path, "Range: bytes=2-4\r\n"), 206],
  ["a range with spaces", get(path, "Range: bytes=\t2-4 \r\n"), 206],
  ["a range beyond the end", get(path, "Range: bytes=10-\r\n"), 416],
  ["no last bytes", get(path, "Range: bytes=-0\r\n"), 416],
  ["a range of lines", get(path, "Range: lines=2-4\r\n"), 200],
  ["several ranges", get(path, "Range: bytes=0-1,3-4\r\n"), 200],
  ["a range twice", get(path, "Range: bytes=0-1\r\nRange: bytes=3-4\r\n"), 200],
  ["a range backwards", get(path, "Range: bytes=4-2\r\n"), 200],
  ["a range of something else", get(path, "Range: bytes=2-4\r\nIf-Range: \"etag\"\r\n"), 200],
  ["a range of a head", `HEAD ${path} HTTP/1.1\r\n${host}Range: bytes=2-4\r\n\r\n`, 200],
  ["a range of a head beyond the end", `HEAD ${path} HTTP/1.1\r\n${host}Range: bytes=10-\r\n\r\n`, 200]
]

describe("requests", () => {
  it.live("are answered as RFC 9112 requires, each once", () =>
    Effect.gen(function*() {
      const node = yield* startNode(MemoryRouter.network(), "127.0.0.2")
      yield* node.content.put(blob)
      for (const [name, bytes, ...answers] of table) {
        assert.deepStrictEqual(statuses(yield* exchange(node, bytes)), answers, name)
      }
      // The server is none the worse for it.
      assert.deepStrictEqual(statuses(yield* exchange(node, get("/livez"))), [200])
    }))

  it.live("name the allowed methods, and have the length of a GET", () =>
    Effect.gen(function*() {
      const node = yield* startNode(MemoryRouter.network(), "127.0.0.2")
      yield* node.content.put(blob)
      for (const bytes of [`PUT ${path} HTTP/1.1\r\n${host}\r\n`, `CONNECT a:1 HTTP/1.1\r\n${host}\r\n`]) {
        assert.match(yield* exchange(node, bytes), /^allow: GET, HEAD\r$/im)
      }
      const head = yield* exchange(node, `HEAD ${path} HTTP/1.1\r\n${host}Range: bytes=2-4\r\n\r\n`)
      assert.match(head, /^content-length: 10\r$/im)
      assert.notMatch(head, /content-range/i)
    }))
})
