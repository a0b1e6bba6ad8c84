import { assert, describe, it } from "@effect/vitest"
import { freePort } from "@spegel-ts/testing/network/FreePort"
import * as InProcess from "@spegel-ts/testing/node/InProcess"
import { Effect } from "effect"
import { createServer } from "node:http"

const serve = Effect.fnUntraced(function*(
  port: number,
  statuses: ReadonlyArray<number>,
  body: string,
  host = "127.0.0.1"
) {
  let asked = 0
  const server = createServer((_request, response) => response.writeHead(statuses[asked++] ?? 200).end(body))
  yield* Effect.acquireRelease(
    Effect.callback<void>((resume) => {
      server.listen(port, host, () => resume(Effect.void))
    }),
    () => Effect.sync(() => server.close(() => undefined).closeAllConnections())
  )
})

describe("spegel probe", () => {
  it.live("asks until all answer, and prints the lines that are asked for", () =>
    Effect.gen(function*() {
      const [ready, metrics] = yield* Effect.all([freePort, freePort])
      yield* serve(ready, [503, 503], "{}")
      const url = `http://127.0.0.1:${metrics}/metrics`
      yield* Effect.forkScoped(
        Effect.delay(serve(metrics, [], "# HELP peers\npeers{a=\"b\"} 2\nother 1\n"), "300 millis")
      )
      const { stdout, complaints } = yield* InProcess.run([
        "probe",
        `--url=http://127.0.0.1:${ready}/readyz`,
        `--url=${url}`,
        "--show=peers",
        "--timeout=30s"
      ])
      assert.deepStrictEqual(complaints, [])
      assert.sameMembers(stdout.split("\n"), [`http://127.0.0.1:${ready}/readyz: 200`, `${url}: 200`, `peers{a="b"} 2`])
    }).pipe(Effect.scoped))

  it.live("asks an IPv6 address, with brackets and as a template writes it that does not know its family", () =>
    Effect.gen(function*() {
      const port = yield* freePort
      yield* serve(port, [], "", "::1")
      for (const host of ["::1", "[::1]", "0:0:0:0:0:0:0:1"]) {
        for (const path of ["", "/", "/readyz?a=b:1"]) {
          const { complaints, stdout } = yield* InProcess.run(["probe", `--url=http://${host}:${port}${path}`])
          assert.deepStrictEqual(complaints, [], `${host} ${path}`)
          assert.include(stdout, "200")
        }
      }
      // Without a port.
      assert.include(
        (yield* InProcess.run(["probe", "--url=http://fd00::7/readyz"])).complaints[0],
        "an http or https URL"
      )
    }).pipe(Effect.scoped))

  it.live("fails with the last answer when its time is over", () =>
    Effect.gen(function*() {
      const [refusing, closed] = yield* Effect.all([freePort, freePort])
      yield* serve(refusing, Array.from({ length: 1000 }, () => 503), "alone")
      const probe = (port: number) => InProcess.run(["probe", `--url=http://127.0.0.1:${port}/`, "--timeout=300ms"])
      assert.include((yield* probe(refusing)).complaints[0], "answered 503: alone")
      assert.include((yield* probe(closed)).complaints[0], "ECONNREFUSED")
      assert.include((yield* InProcess.run(["probe"])).complaints[0], "--url: is needed")
    }).pipe(Effect.scoped))
})
