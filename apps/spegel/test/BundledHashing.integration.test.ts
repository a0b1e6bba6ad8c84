import { assert, describe, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import { spawn } from "node:child_process"
import { createHash, randomBytes } from "node:crypto"
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises"
import { createServer } from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

/** Made by `BundleSetup`. */
const bundle = fileURLToPath(new URL("../bundle", import.meta.url))
const port = 30_000 + (process.pid % 400) * 4
/** Larger than what is verified before any of it is sent. */
const size = 6 * 1024 * 1024

const temporary = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "spegel-bundled-"))),
  (directory) => Effect.promise(() => rm(directory, { recursive: true, force: true }))
)

const blob = Effect.promise(async () => {
  const bytes = randomBytes(size)
  return { bytes, hex: createHash("sha256").update(bytes).digest("hex") }
})

const layout = (directory: string, name: string, blobs: ReadonlyArray<{ bytes: Buffer; hex: string }>) =>
  Effect.promise(async () => {
    const path = join(directory, name)
    await mkdir(join(path, "blobs", "sha256"), { recursive: true })
    for (const { bytes, hex } of blobs) await writeFile(join(path, "blobs", "sha256", hex), bytes)
    return path
  })

/** A daemon from the bundle; gives what it logs. */
const daemon = (
  options: { registry: string; router: string; layout: string; data: string; peer: string }
) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const log: Array<string> = []
      const child = spawn(process.execPath, [
        join(bundle, "main.js"),
        "registry",
        `--store=oci-layout:${options.layout}`,
        `--registry-addr=${options.registry}:${port}`,
        `--router-addr=${options.router}:${port + 1}`,
        `--metrics-addr=${options.registry}:${port + 2}`,
        `--data-dir=${options.data}`,
        "--mirror-resolve-timeout=5s",
        "--mirror-verify=stream",
        "--bootstrap-kind=static",
        `--static-bootstrap-peers=${options.peer}:${port + 1}`
      ], { stdio: ["ignore", "ignore", "pipe"] })
      child.stderr.on("data", (chunk: Buffer) => log.push(String(chunk)))
      return { log, child }
    }),
    ({ child }) =>
      Effect.callback<void>((resume) => {
        child.once("close", () => resume(Effect.void)).kill("SIGKILL")
      })
  )

describe("the bundled daemon", { timeout: 120_000 }, () => {
  it.live("hashes what it relays on its thread: a right layer is completed, a wrong one never", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const [right, wrong] = [yield* blob, yield* blob]
      const holds = yield* layout(directory, "full", [right, wrong])
      const empty = yield* layout(directory, "empty", [])

      // The peer tells of both; at its address and the port of all registries, another answers, who lies about one.
      yield* Effect.acquireRelease(
        Effect.callback<ReturnType<typeof createServer>>((resume) => {
          const server = createServer((request, response) => {
            const bytes = request.url?.includes(right.hex) ? right.bytes : Buffer.alloc(size, "poison")
            response.writeHead(200, { "content-length": size }).end(bytes)
          }).listen(port, "127.0.0.42", () => resume(Effect.succeed(server)))
        }),
        (server) =>
          Effect.sync(() => {
            server.closeAllConnections()
            server.close()
          })
      )
      yield* daemon({
        registry: "127.0.0.43",
        router: "127.0.0.42",
        layout: holds,
        data: join(directory, "holder"),
        peer: "127.0.0.41"
      })
      const { log } = yield* daemon({
        registry: "127.0.0.41",
        router: "127.0.0.41",
        layout: empty,
        data: join(directory, "mirror"),
        peer: "127.0.0.42"
      })
      const get = (hex: string) =>
        Effect.promise((signal) =>
          fetch(`http://127.0.0.41:${port}/v2/team/app/blobs/sha256:${hex}?ns=registry.example`, { signal }).then(
            async (response) => ({
              status: response.status,
              body: await response.arrayBuffer().then((body) => Buffer.from(body), () => undefined)
            }),
            () => ({ status: 0, body: undefined })
          )
        )
      let answer = yield* get(right.hex)
      for (let turn = 0; turn < 200 && answer.status !== 200; turn++) {
        yield* Effect.sleep("100 millis")
        answer = yield* get(right.hex)
      }
      assert.isTrue(answer.body?.equals(right.bytes), log.join(""))
      const poisoned = yield* get(wrong.hex)
      assert.strictEqual(poisoned.status, 200)
      assert.isUndefined(poisoned.body)
      // A log is written behind what it tells of.
      const isTold = Effect.sync(() => log.join("").includes("sent wrong bytes"))
      yield* Effect.repeat(isTold, { schedule: Schedule.spaced("50 millis"), until: (told) => told, times: 100 })
      assert.include(log.join(""), "sent wrong bytes")
      // Said where the thread's file is missing.
      assert.notInclude(log.join(""), "hashing thread")
    }))
})
