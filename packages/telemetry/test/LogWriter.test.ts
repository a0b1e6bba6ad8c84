import { assert, describe, it } from "@effect/vitest"
import * as LogWriter from "@spegel-ts/telemetry/LogWriter"
import { Effect, Fiber, Metric, Schedule } from "effect"
import { execFileSync } from "node:child_process"
import { closeSync, constants, mkdtempSync, openSync, readFileSync, readSync, rmSync, writeSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const temporary = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "spegel-log-"))),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true }))
)

/** Lines that were dropped since the process began. */
const dropped = Effect.map(
  Metric.snapshot,
  (metrics) =>
    metrics.flatMap((metric) =>
      metric.id === "spegel_log_lines_dropped_total" && metric.type === "Counter" ? [Number(metric.state.count)] : []
    )[0] ?? Number.NaN
)

const opened = (path: string, flags: number) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      let fd: number | undefined = openSync(path, flags)
      const close = () => {
        if (fd !== undefined) closeSync(fd)
        fd = undefined
      }
      return { fd, close }
    }),
    ({ close }) => Effect.sync(close)
  )

/** A named pipe whose writing end waits for its reader, as a shell or a container runtime makes it. */
const startPipe = Effect.gen(function*() {
  const path = join(yield* temporary, "log")
  execFileSync("mkfifo", [path])
  const open = opened(path, constants.O_RDONLY | constants.O_NONBLOCK)
  const reader = yield* open
  const { fd } = yield* opened(path, constants.O_WRONLY)
  return { fd, reader, open }
})

/** All that can be read now. */
const readAll = (fd: number): string => {
  const chunk = Buffer.alloc(65_536)
  let text = ""
  for (;;) {
    try {
      const count = readSync(fd, chunk)
      if (count === 0) return text
      text += chunk.toString("latin1", 0, count)
    } catch {
      return text
    }
  }
}

const until = (condition: () => boolean) =>
  Effect.sync(condition).pipe(Effect.repeat({ until: (met) => met, schedule: Schedule.spaced("10 millis") }))

const write = (writer: LogWriter.LogWriter, count: number, size = 1000) => {
  for (let index = 0; index < count; index++) writer.write(`${String(index).padEnd(size - 1)}\n`)
}

const notice = (lines: number) => `${lines} were dropped\n`

describe("LogWriter", () => {
  it.live("goes on where nobody reads, and says afterwards how much was dropped", () =>
    Effect.gen(function*() {
      const { fd, reader } = yield* startPipe
      const writer = LogWriter.make(fd, { notice })
      const before = yield* dropped
      write(writer, 3000)
      const lost = (yield* dropped) - before
      // A pipe and the buffer hold a good megabyte.
      assert.isAbove(lost, 1800)
      assert.isBelow(lost, 2000)
      let text = ""
      yield* until(() => (text += readAll(reader.fd)).includes("dropped"))
      const lines = text.trimEnd().split("\n")
      assert.strictEqual(lines.pop(), `${lost} were dropped`)
      assert.deepStrictEqual(lines.map(Number), Array.from({ length: 3000 - lost }, (_, index) => index))
      writer.write("well\n")
      assert.strictEqual(readAll(reader.fd), "well\n")
    }))

  it.live("goes on where the reader is gone, and begins a line of its own for the next one", () =>
    Effect.gen(function*() {
      const { fd, open, reader } = yield* startPipe
      const writer = LogWriter.make(fd, { notice })
      const before = yield* dropped
      writer.write(`${"x".repeat(200_000)}\n`)
      reader.close()
      yield* Effect.promise(() => writer.flush(10_000))
      write(writer, 10)
      assert.strictEqual((yield* dropped) - before, 11)
      const next = yield* open
      writer.write("next\n")
      let text = ""
      yield* until(() => (text += readAll(next.fd)).includes("dropped"))
      assert.match(text, /^x+\nnext\n11 were dropped\n$/)
    }))

  it.effect("goes on where the device is full", () =>
    Effect.gen(function*() {
      const { fd } = yield* opened("/dev/full", constants.O_WRONLY)
      const writer = LogWriter.make(fd, { notice })
      const before = yield* dropped
      write(writer, 10)
      assert.strictEqual((yield* dropped) - before, 10)
    }))

  it.effect("goes on where there is no descriptor", () =>
    Effect.gen(function*() {
      const before = yield* dropped
      const writer = LogWriter.make(123_456, { notice })
      assert.strictEqual((yield* dropped) - before, 0)
      write(writer, 10)
      yield* Effect.promise(() => writer.flush(10_000))
      assert.strictEqual((yield* dropped) - before, 10)
    }))

  it.live("keeps to the end of a file that others write to as well", () =>
    Effect.gen(function*() {
      const path = join(yield* temporary, "log")
      const { fd } = yield* opened(path, constants.O_WRONLY | constants.O_CREAT)
      writeSync(fd, "theirs\n")
      const writer = LogWriter.make(fd, { notice })
      write(writer, 2, 5)
      yield* Effect.promise(() => writer.flush(10_000))
      writeSync(fd, "theirs\n")
      writer.write("ours\n")
      yield* Effect.promise(() => writer.flush(10_000))
      assert.deepStrictEqual(readFileSync(path, "utf8").split("\n").map((line) => line.trim()), [
        "theirs",
        "0",
        "1",
        "theirs",
        "ours",
        ""
      ])
    }))

  it.live("waits for a reader at the end, but not for long", () =>
    Effect.gen(function*() {
      const { fd, reader } = yield* startPipe
      const writer = LogWriter.make(fd, { notice })
      write(writer, 200)
      yield* Effect.promise(() => writer.flush(50))
      let text = ""
      const reading = yield* Effect.forkScoped(until(() => (text += readAll(reader.fd)).length === 200_000))
      yield* Effect.promise(() => writer.flush(60_000))
      yield* Fiber.join(reading)
    }))
})
