import { assert, describe, it } from "@effect/vitest"
import * as OciLayoutWriter from "@spegel-ts/content/OciLayoutWriter"
import * as RandomImage from "@spegel-ts/testing/content/RandomImage"
import * as MirrorPorts from "@spegel-ts/testing/node/MirrorPorts"
import * as SpegelProcess from "@spegel-ts/testing/node/SpegelProcess"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Effect, Schedule } from "effect"
import { get, type IncomingMessage } from "node:http"
import { join } from "node:path"

const mebibyte = 1024 * 1024

/** A clock that SIGUSR2 sets: forward by a day at first, then back to an hour before the truth. */
const settableClock = `
  const moves = [86_400_000, -90_000_000]
  const RealDate = Date
  let moved = 0
  globalThis.Date = class extends RealDate {
    constructor(...parts) {
      if (parts.length === 0) super(RealDate.now() + moved)
      else super(...parts)
    }
    static now() {
      return RealDate.now() + moved
    }
  }
  process.on("SIGUSR2", () => moved += moves.shift() ?? 0)
`

/** A pair of mirrors whose clocks can be set; only the first has a store with images. */
const startPair = Effect.gen(function*() {
  const ports = yield* MirrorPorts.free
  const start = Effect.fnUntraced(function*(address: string) {
    const directory = yield* temporary
    const layout = join(directory, "layout")
    const writer = yield* OciLayoutWriter.make({ root: layout })
    const { child } = yield* SpegelProcess.start(
      [
        "registry",
        ...MirrorPorts.flags(address, ports),
        `--data-dir=${directory}`,
        `--store=oci-layout:${layout}`,
        "--bootstrap-kind=static",
        `--static-bootstrap-peers=127.0.0.2:${ports.router},127.0.0.3:${ports.router}`,
        "--mirror-resolve-timeout=5s"
      ],
      { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(settableClock)}` }
    )
    const url = `http://${address}:${ports.registry}`
    yield* SpegelProcess.untilReady(url)
    return {
      url,
      writer,
      metrics: `http://${address}:${ports.metrics}`,
      setClock: Effect.sync(() => child.kill("SIGUSR2"))
    }
  })
  return { holder: yield* start("127.0.0.2"), node: yield* start("127.0.0.3") }
})

/** Waits until a node says that a request of the time of its clock is about `offset` from now. */
const untilSet = (metrics: string, url: string, offsetMillis: number) =>
  Effect.promise(async () => {
    await fetch(`${url}/v2/absent/manifests/v1?ns=registry.example`)
    const [pull] = (await (await fetch(`${metrics}/debug/pulls`)).json()) as ReadonlyArray<{ readonly time: number }>
    return Math.abs((pull?.time ?? 0) - (Date.now() + offsetMillis)) < 600_000
  }).pipe(Effect.repeat({ schedule: Schedule.spaced("50 millis"), until: (set) => set }))

const beginBody = (url: string) =>
  Effect.callback<IncomingMessage, Error>((resume) => {
    get(url, (response) => {
      response.once("readable", () => resume(Effect.succeed(response)))
    }).on("error", (error) => resume(Effect.fail(error)))
  })

const readAll = (response: IncomingMessage) =>
  Effect.promise(async () => {
    let bytes = 0
    for await (const chunk of response) bytes += (chunk as Buffer).length
    return bytes
  })

describe("mirrors whose clocks are set", { timeout: 120_000 }, () => {
  it.live("go on with bodies under way, know each other, and find what is new", () =>
    Effect.gen(function*() {
      const { holder, node } = yield* startPair
      const write = (seed: number) =>
        RandomImage.write({
          writer: holder.writer,
          reference: { registry: "registry.example", repository: "team/app", tag: `v${seed}` },
          layerSizes: [32 * mebibyte],
          seed
        })
      const layerUrl = (image: RandomImage.RandomImage) =>
        `${node.url}/v2/team/app/blobs/${image.objects.at(-1)?.descriptor.digest}?ns=registry.example`
      const sizeOf = (image: RandomImage.RandomImage) => image.objects.at(-1)?.descriptor.size
      const find = (image: RandomImage.RandomImage) =>
        Effect.tryPromise(() => fetch(layerUrl(image), { method: "HEAD" })).pipe(
          Effect.filterOrFail(({ ok }) => ok, () => "not found yet" as const),
          Effect.retry({ schedule: Schedule.spaced("100 millis"), times: 200 })
        )
      const pulled = (image: RandomImage.RandomImage) => Effect.flatMap(beginBody(layerUrl(image)), readAll)
      const first = yield* write(0)
      yield* find(first)
      for (const [index, offset] of [86_400_000, -3_600_000].entries()) {
        const response = yield* beginBody(layerUrl(first))
        yield* holder.setClock
        yield* node.setClock
        yield* untilSet(node.metrics, node.url, offset)
        assert.strictEqual(yield* readAll(response), sizeOf(first))
        assert.strictEqual(yield* pulled(first), sizeOf(first))
        const next = yield* write(index + 1)
        yield* find(next)
        assert.strictEqual(yield* pulled(next), sizeOf(next))
      }
      // By then, all tasks that run every few seconds have run.
      yield* Effect.sleep("11 seconds")
      assert.strictEqual(yield* pulled(first), sizeOf(first))
      const peers = yield* Effect.promise(async () => (await fetch(`${node.metrics}/debug/peers`)).json())
      // The node itself is the first of them.
      assert.strictEqual((peers as ReadonlyArray<unknown>).length, 2)
    }))
})
