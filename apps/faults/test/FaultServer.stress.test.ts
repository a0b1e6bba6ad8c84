import { assert, describe, it } from "@effect/vitest"
import { clockChanges, type Fault, faults, type RequestKind } from "@spegel-ts/faults/Fault"
import { FaultServer } from "@spegel-ts/faults/FaultServer"
import { freePort } from "@spegel-ts/testing/network/FreePort"
import { Effect, Schedule } from "effect"
import { createHash } from "node:crypto"
import { connect } from "node:net"

const bytes = createHash("shake256", { outputLength: 20_000 }).update("a blob").digest()
const digest = `sha256:${createHash("sha256").update(bytes).digest("hex")}`
const blob = `/v2/team/app/blobs/${digest}`

interface Answer {
  readonly head: string
  readonly body: Buffer
  readonly end: "FIN" | "ECONNRESET" | "ECONNREFUSED" | "open"
}

const parse = (all: Buffer) => {
  const split = all.indexOf("\r\n\r\n")
  return split === -1
    ? { head: "", body: Buffer.alloc(0) }
    : { head: all.subarray(0, split).toString().toLowerCase(), body: all.subarray(split + 4) }
}

/** Asks for a path and takes what comes, until it ends; or looks whether more comes when `enough` of the body is there. */
const ask = (port: number, path: string, enough: number | "nothing") =>
  Effect.callback<Answer>((resume) => {
    const received: Array<Buffer> = []
    const socket = connect(port, "127.0.0.1")
    const finish = (end: Answer["end"]) => {
      socket.destroy()
      resume(Effect.succeed({ ...parse(Buffer.concat(received)), end }))
    }
    let timer = enough === "nothing" ? setTimeout(finish, 200, "open") : undefined
    socket.on("data", (chunk) => {
      received.push(chunk)
      const { body, head } = parse(Buffer.concat(received))
      if (head === "" || (enough !== "nothing" && body.length < enough)) return
      clearTimeout(timer)
      timer = setTimeout(finish, 200, "open")
    })
    socket.on("end", () => finish("FIN"))
    socket.on("error", (error: NodeJS.ErrnoException) => finish(error.code as Answer["end"]))
    socket.on("close", () => clearTimeout(timer))
    socket.write(`GET ${path} HTTP/1.1\r\nHost: peer\r\n\r\n`)
  })

const serve = Effect.fnUntraced(function*(fault: Fault, kind: RequestKind) {
  const port = yield* freePort
  let vanished = false
  let frozen = 0
  let changed = 0
  const server = new FaultServer({
    host: "127.0.0.1",
    port,
    objects: [{ digest, mediaType: "application/octet-stream", bytes }],
    misbehaviour: { fault, kind },
    happenings: {
      vanish: () => vanished = true,
      freezeOther: () => frozen++,
      changeClock: (millis) => changed += millis
    }
  })
  yield* Effect.acquireRelease(Effect.promise(() => server.start()), () => Effect.sync(() => server.stop()))
  return { port, server, vanished: () => vanished, frozen: () => frozen, changed: () => changed }
})

const whole = bytes.length
const half = whole / 2

/** How much comes of the body, how long the head says it is, and how it ends. */
const expected: Record<
  Exclude<Fault, "404" | "500" | "503" | "refuse" | "reset mid-body" | "restart beside a freeze">,
  {
    readonly length: number
    readonly sent: number
    readonly end: Answer["end"]
  }
> = {
  "never answer": { length: 0, sent: 0, end: "open" },
  "headers then nothing": { length: whole, sent: 0, end: "open" },
  "FIN mid-body": { length: whole, sent: half, end: "FIN" },
  "stall mid-body": { length: whole, sent: half, end: "open" },
  vanish: { length: whole, sent: half, end: "open" },
  "wrong bytes": { length: whole, sent: whole, end: "open" },
  "short body": { length: 0.75 * whole, sent: 0.75 * whole, end: "open" },
  "long body": { length: whole + 1000, sent: whole + 1000, end: "open" },
  "wrong Content-Type": { length: whole, sent: whole, end: "open" },
  "wrong Content-Length": { length: half, sent: whole, end: "open" },
  "clock back 1 h": { length: whole, sent: whole, end: "open" },
  "clock on 1 d": { length: whole, sent: whole, end: "open" },
  "slow 100 KB/s": { length: whole, sent: whole, end: "open" }
}

describe("a fault", () => {
  for (const fault of faults) {
    if (!(fault in expected)) continue
    it.live(`${fault}: is what it is called`, () =>
      Effect.gen(function*() {
        const { end, length, sent } = expected[fault as keyof typeof expected]
        const { changed, port, server, vanished } = yield* serve(fault, "GET small blob")
        const started = performance.now()
        const answer = yield* ask(port, blob, fault === "never answer" ? "nothing" : sent)
        assert.strictEqual(answer.end, end)
        assert.strictEqual(answer.body.length, sent)
        assert.strictEqual(Number(/content-length: (\d+)/.exec(answer.head)?.[1] ?? 0), length)
        assert.strictEqual(answer.head.includes("text/html"), fault === "wrong Content-Type")
        assert.strictEqual(vanished(), fault === "vanish")
        assert.strictEqual(changed(), clockChanges[fault] ?? 0)
        const right = Buffer.compare(answer.body.subarray(0, whole), bytes.subarray(0, sent)) === 0
        assert.strictEqual(right, fault !== "wrong bytes")
        if (fault === "slow 100 KB/s") assert.isAtLeast(performance.now() - started, 100)
        assert.deepStrictEqual(server.counts, { requests: 1, faulty: 1, bytes: sent })
      }))
  }

  it.live("a status is given as it is", () =>
    Effect.gen(function*() {
      for (const status of ["404", "500", "503"] as const) {
        const { port } = yield* serve(status, "GET small blob")
        assert.include((yield* ask(port, blob, 1)).head, `http/1.1 ${status} `)
      }
    }))

  it.live("a reset is no orderly end", () =>
    Effect.gen(function*() {
      const { port } = yield* serve("reset mid-body", "GET small blob")
      const answer = yield* ask(port, blob, 1e9)
      assert.strictEqual(answer.end, "ECONNRESET")
      assert.isBelow(answer.body.length, whole)
    }))

  it.live("a peer that is killed breaks off and refuses, and is well when it is back", () =>
    Effect.gen(function*() {
      const { frozen, port, server } = yield* serve("restart beside a freeze", "GET small blob")
      const broken = yield* ask(port, blob, 1e9)
      assert.deepStrictEqual([broken.end, frozen()], ["ECONNRESET", 1])
      assert.isBelow(broken.body.length, whole)
      assert.strictEqual((yield* ask(port, blob, 1e9)).end, "ECONNREFUSED")
      const back = ask(port, blob, whole).pipe(
        Effect.filterOrFail(({ end }) => end === "open", () => "not back yet"),
        Effect.retry({ schedule: Schedule.spaced("50 millis"), times: 100 })
      )
      assert.isTrue((yield* back).body.equals(bytes))
      assert.strictEqual(server.counts.faulty, 1)
    }))

  it.live("connections are refused from the first request on, or when what comes before was answered", () =>
    Effect.gen(function*() {
      const first = yield* serve("refuse", "HEAD tag")
      assert.strictEqual((yield* ask(first.port, blob, 1e9)).end, "ECONNREFUSED")
      const later = yield* serve("refuse", "GET small blob")
      const manifest = yield* ask(later.port, `/v2/team/app/manifests/${digest}`, 1e9)
      assert.deepStrictEqual({ ...manifest, head: "" }, { head: "", body: bytes, end: "FIN" })
      assert.strictEqual((yield* ask(later.port, blob, 1e9)).end, "ECONNREFUSED")
    }))

  it.live("other requests are answered as they should be, and from the middle", () =>
    Effect.gen(function*() {
      const { port, server } = yield* serve("500", "GET small blob")
      const response = yield* Effect.promise(() =>
        fetch(`http://127.0.0.1:${port}/v2/team/app/manifests/v1`, { headers: { range: "bytes=100-" } })
      )
      assert.strictEqual(response.status, 206)
      assert.strictEqual(response.headers.get("content-range"), `bytes 100-${whole - 1}/${whole}`)
      assert.deepStrictEqual(Buffer.from(yield* Effect.promise(() => response.arrayBuffer())), bytes.subarray(100))
      assert.strictEqual(server.counts.faulty, 0)
    }))
})
