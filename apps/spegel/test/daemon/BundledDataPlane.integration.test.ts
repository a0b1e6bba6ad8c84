import { assert, describe, it } from "@effect/vitest"
import { version } from "@spegel-ts/spegel/Version"
import * as MirrorPorts from "@spegel-ts/testing/node/MirrorPorts"
import * as SpegelProcess from "@spegel-ts/testing/node/SpegelProcess"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Effect, Schedule } from "effect"
import { createHash, randomBytes } from "node:crypto"
import { mkdir, writeFile } from "node:fs/promises"
import { join } from "node:path"

/** Larger than what is verified before any of it is sent. */
const size = 6 * 1024 * 1024

const layout = (path: string, blobs: ReadonlyArray<{ readonly bytes: Buffer; readonly hex: string }>) =>
  Effect.promise(async () => {
    await mkdir(join(path, "blobs", "sha256"), { recursive: true })
    for (const { bytes, hex } of blobs) await writeFile(join(path, "blobs", "sha256", hex), bytes)
    return path
  })

/** Two mirrors, the second of which has nothing. */
const pair = Effect.fnUntraced(function*(flags: ReadonlyArray<string>, bytes: Buffer, hex: string) {
  const directory = yield* temporary
  const ports = yield* MirrorPorts.free
  const start = (address: string, store: string) =>
    SpegelProcess.start([
      "registry",
      `--store=oci-layout:${store}`,
      ...MirrorPorts.flags(address, ports),
      `--data-dir=${store}-data`,
      "--mirror-resolve-timeout=5s",
      "--bootstrap-kind=static",
      `--static-bootstrap-peers=127.0.0.42:${ports.router}`,
      ...flags
    ])
  yield* start("127.0.0.42", yield* layout(join(directory, "full"), [{ bytes, hex }]))
  const { output } = yield* start("127.0.0.41", yield* layout(join(directory, "empty"), []))
  const text = (url: string) => Effect.tryPromise((signal) => fetch(url, { signal }).then((answer) => answer.text()))
  const url = `http://127.0.0.41:${ports.registry}`
  const blob = `${url}/v2/team/app/blobs/sha256:${hex}?ns=registry.example`
  yield* SpegelProcess.untilReady(url)
  yield* Effect.tryPromise((signal) => fetch(blob, { method: "HEAD", signal })).pipe(
    Effect.filterOrFail(({ ok }) => ok, () => "not found yet" as const),
    Effect.retry({ schedule: Schedule.spaced("100 millis"), times: 300 })
  )
  return {
    output,
    blob,
    metrics: text(`http://127.0.0.41:${ports.metrics}/metrics`),
    page: text(`http://127.0.0.41:${ports.metrics}/debug/web/`)
  }
})

/** The body as far as it came. */
const get = (url: string) =>
  Effect.promise(async (signal) => {
    const chunks: Array<Uint8Array> = []
    const answer = await fetch(url, { signal })
    try {
      for await (const chunk of answer.body ?? []) chunks.push(chunk)
    } catch {
      return { complete: false, body: Buffer.concat(chunks) }
    }
    return { complete: true, body: Buffer.concat(chunks) }
  })

describe("the bundled daemon", { timeout: 120_000 }, () => {
  for (const plane of ["zero-copy", "portable"]) {
    it.live(`relays a layer by the ${plane} data plane, and says so`, () =>
      Effect.gen(function*() {
        const bytes = randomBytes(size)
        const hex = createHash("sha256").update(bytes).digest("hex")
        const { blob, metrics, output, page } = yield* pair([`--data-plane=${plane}`], bytes, hex)
        assert.isTrue((yield* get(blob)).body.equals(bytes))
        assert.match(yield* metrics, new RegExp(`^spegel_data_plane\\{plane="${plane}"\\} 1$`, "m"))
        assert.include(yield* page, `Data plane: ${plane}`)
        assert.include(output.stderr, `data plane: ${plane}`)
      }))
  }

  it.live("never completes a wrong layer where it verifies what it relays", () =>
    Effect.gen(function*() {
      const bytes = randomBytes(size)
      const { blob, output } = yield* pair(["--mirror-verify=stream"], bytes, "0".repeat(64))
      const { body, complete } = yield* get(blob)
      assert.isFalse(complete)
      assert.isTrue(body.equals(bytes.subarray(0, body.length)))
      // A log is written behind what it tells of.
      const isTold = Effect.sync(() => output.stderr.includes("sent wrong bytes"))
      yield* Effect.repeat(isTold, { schedule: Schedule.spaced("50 millis"), until: (told) => told, times: 100 })
      assert.include(output.stderr, "sent wrong bytes")
    }))

  it.live("says in `version` how it moves bodies here", () =>
    Effect.gen(function*() {
      const { stdout } = yield* SpegelProcess.run(["version"])
      assert.match(stdout, /^data plane: zero-copy$/m)
      const { build, runtime } = JSON.parse((yield* SpegelProcess.run(["version", "--format=json"])).stdout)
      assert.strictEqual(runtime.dataPlane, "zero-copy")
      // The bundle knows what it was made of, where git does.
      assert.match(stdout, new RegExp(`^spegel version ${version} ${build.commit}\n`))
      assert.match(build.commit, /^(?:[0-9a-f]{40}(?:-dirty)?|unknown)$/)
    }))
})
