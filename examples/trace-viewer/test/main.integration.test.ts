import { assert, describe, it } from "@effect/vitest"
import * as Tracing from "@spegel-ts/telemetry/Tracing"
import { freePort } from "@spegel-ts/testing/network/FreePort"
import { Duration, Effect, Schedule } from "effect"
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"

const main = fileURLToPath(new URL("../main.ts", import.meta.url))

describe("the example of traces in the terminal", () => {
  it.live("prints a trace as a tree, its parts in order", () =>
    Effect.gen(function*() {
      const port = yield* freePort
      let output = ""
      yield* Effect.acquireRelease(
        Effect.sync(() => {
          const child = spawn(process.execPath, [main, `--port=${port}`, "--quiet=500"], {
            stdio: ["ignore", "pipe", "inherit"]
          })
          child.stdout.on("data", (bytes: Buffer) => output += bytes.toString())
          return child
        }),
        (child) => Effect.sync(() => child.kill("SIGKILL"))
      )
      const untilPrinted = (text: string) =>
        Effect.sync(() => output).pipe(
          Effect.repeat({ until: (output) => output.includes(text), schedule: Schedule.spaced("20 millis") })
        )
      yield* untilPrinted("listening")
      yield* Effect.void.pipe(
        Effect.withSpan("inner"),
        Effect.withSpan("first", { attributes: { "spegel.hit": false, "url.path": "/" } }),
        Effect.andThen(Effect.delay(Effect.void.pipe(Effect.withSpan("second")), "2 millis")),
        Effect.withSpan("GET", { root: true, kind: "server", attributes: { "http.response.status_code": 200 } }),
        Effect.provide(Tracing.layer({
          environment: {
            OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${port}`,
            OTEL_EXPORTER_OTLP_PROTOCOL: "http/json"
          },
          attributes: {},
          version: "1",
          flushTimeout: Duration.seconds(10)
        }))
      )
      yield* untilPrinted("second")
      const time = String.raw`[\d.]+ \+[\d.]+ ms`
      assert.match(
        output,
        new RegExp(
          `^GET  ${time}  status_code=200\n├ first  ${time}  hit=false\n│ └ inner  ${time}  \n└ second  ${time}  \n\n`,
          "m"
        )
      )
    }))
})
