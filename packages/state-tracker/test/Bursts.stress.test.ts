/** Files that come and go by the thousand, faster than the kernel keeps events: in the end what is held is advertised. */
import { assert, describe, it } from "@effect/vitest"
import { ContentStore } from "@spegel-ts/content/ContentStore"
import * as OciLayout from "@spegel-ts/content/OciLayout"
import * as MemoryRouter from "@spegel-ts/router/MemoryRouter"
import { StateTracker } from "@spegel-ts/state-tracker/StateTracker"
import { Context, Effect, Layer, Stream } from "effect"
import { createHash } from "node:crypto"
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  unlinkSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const self = { id: "self", addresses: ["10.0.0.1"], servicePort: 5000 }
const inotifyLimit = () => Number(readFileSync("/proc/sys/fs/inotify/max_queued_events", "utf8"))

const until = (condition: () => boolean) => Effect.repeat(Effect.sleep("5 millis"), { until: condition })

const start = Effect.gen(function*() {
  const root = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "bursts-"))),
    (root) => Effect.sync(() => rmSync(root, { recursive: true }))
  )
  const blobs = join(root, "blobs", "sha256")
  mkdirSync(blobs, { recursive: true })
  writeFileSync(join(root, "oci-layout"), "{}")
  const network = MemoryRouter.network()
  const services = yield* Layer.build(OciLayout.layer({ root }))
  const store = Context.get(services, ContentStore)
  let losses = -1
  let listings = 0
  const counted = Layer.succeed(ContentStore, {
    ...store,
    digests: Stream.suspend(() => {
      listings++
      return store.digests
    }),
    changes: Stream.tap(store.changes, ({ _tag }) =>
      Effect.sync(() => {
        if (_tag === "Resync") losses++
      }))
  })
  const tracker = yield* Layer.build(
    StateTracker.layer({ filter: () => true }).pipe(
      Layer.provide(counted),
      Layer.provide(MemoryRouter.layer({ network, self }))
    )
  )
  yield* Effect.forkScoped(Context.get(tracker, StateTracker).run)
  yield* until(() => listings > 0)
  const advertised = () =>
    new Set([...network.providers].flatMap(([key, providers]) => providers.has(self.id) ? [key as string] : []))
  const held = () => new Set(readdirSync(blobs).map((name) => `sha256:${name}`))
  /** Waits until what is advertised is what is held. */
  const untilEqual = Effect.gen(function*() {
    for (let look = 0; look < 2000; look++) {
      const [now, wanted] = [advertised(), held()]
      if (now.size === wanted.size && [...now].every((key) => wanted.has(key))) return
      yield* Effect.sleep("50 millis")
    }
    assert.fail(`${advertised().size} are advertised of ${held().size} held`)
  })
  const nameOf = (at: number) => createHash("sha256").update(`${at}`).digest("hex")
  const add = (at: number) => {
    writeFileSync(join(root, "new"), "")
    renameSync(join(root, "new"), join(blobs, nameOf(at)))
  }
  const remove = (at: number) => unlinkSync(join(blobs, nameOf(at)))
  return { add, held, listings: () => listings, losses: () => losses, remove, untilEqual }
})

describe("StateTracker over files", () => {
  it.live(
    "finds everything after bursts that the kernel has no room for, of blobs that come and of blobs that go",
    () =>
      Effect.gen(function*() {
        const { add, held, losses, remove, untilEqual } = yield* start
        yield* untilEqual
        const count = inotifyLimit() + 4000
        // Nobody takes events meanwhile.
        for (let at = 0; at < count; at++) add(at)
        yield* untilEqual
        assert.strictEqual(held().size, count)
        // The listing at the start may have found them before the loss was noticed.
        yield* until(() => losses() > 0)
        const before = losses()
        for (let at = 0; at < count - 10; at++) remove(at)
        yield* untilEqual
        assert.strictEqual(held().size, 10)
        yield* until(() => losses() > before)
      }),
    120_000
  )

  it.live(
    "follows thousands that come and go a few at a time, without listing them again",
    () =>
      Effect.gen(function*() {
        const { add, listings, losses, remove, untilEqual } = yield* start
        for (let at = 0; at < 5000; at++) {
          add(at)
          if (at % 100 === 99) yield* Effect.sleep("5 millis")
        }
        yield* untilEqual
        for (let at = 0; at < 3000; at += 100) {
          for (let next = at; next < at + 100; next++) {
            remove(next)
            add(10_000 + next)
            if (next % 3 === 0) add(next)
          }
          yield* Effect.sleep("5 millis")
        }
        yield* untilEqual
        // The listing is the one at the start.
        assert.deepStrictEqual([losses(), listings()], [0, 1])
      }),
    120_000
  )
})
