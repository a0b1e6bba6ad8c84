import { assert, describe, it } from "@effect/vitest"
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import type { KubeletPull } from "@spegel-ts/containerd/KubeletPulls"
import * as Digest from "@spegel-ts/oci/Digest"
import type { PullEvent } from "@spegel-ts/registry/PullLog"
import { ContainerdFaults } from "@spegel-ts/spegel/containerd/ContainerdFaults"
import * as UseWatch from "@spegel-ts/spegel/containerd/UseWatch"
import { Effect, Layer, Logger, Option, Queue, Stream } from "effect"
import { TestClock } from "effect/testing"

const start = Effect.fnUntraced(function*(hasPredecessor = false) {
  const lines: Array<string> = []
  const logger = Logger.layer([Logger.make(({ logLevel, message }) => lines.push(`${logLevel} ${String(message)}`))])
  const faults = yield* Effect.provide(ContainerdFaults, yield* Layer.build(ContainerdFaults.layer))
  const requests = yield* Queue.unbounded<PullEvent>()
  const state = { ready: true }
  const watch = yield* UseWatch.make({
    faults,
    requests: Stream.fromQueue(requests),
    hasPredecessor,
    ready: Effect.sync(() => state.ready),
    filter: ({ registry }) => registry !== "left-out.example",
    configPath: "/etc/containerd/certs.d"
  })
  yield* Effect.forkScoped(Effect.provide(watch.run, logger), { startImmediately: true })
  let pulls = 0
  /** A pull that ends now, and whose manifest came so long ago. */
  const pull = Effect.fnUntraced(function*(over: Partial<KubeletPull> = {}, millisAgo = 500) {
    const fetchedAt = (yield* MonotonicTime.millis) - millisAgo
    const digest = Digest.ofBytes(Buffer.from(`image ${pulls++}`))
    const reference = { registry: "registry.example", repository: "team/app", digest }
    yield* Effect.provide(
      watch.pulled({ reference, fetchedAt, keepsLayers: Option.some(true), ...over }),
      logger
    )
  })
  const request = (mirrored = false) => Queue.offer(requests, { mirrored } as PullEvent)
  yield* TestClock.adjust("20 seconds")
  return { faults, lines, pull, request, state }
})

const minute = TestClock.adjust("1 minute")
const known = (faults: typeof ContainerdFaults.Service) => Effect.map(faults.known, (map) => [...map.keys()])

describe("UseWatch", () => {
  it.effect("says within a minute of the first pull that nothing was asked, once, and when that is over", () =>
    Effect.gen(function*() {
      const { faults, lines, pull, request } = yield* start()
      yield* pull()
      yield* minute
      assert.lengthOf(lines, 1)
      assert.match(lines[0] ?? "", /^Warn containerd does not use this mirror: .*registry\.example\/team\/app@sha256:/)
      assert.include(lines[0], "set config_path in containerd's configuration to /etc/containerd/certs.d")
      assert.deepStrictEqual(yield* known(faults), ["NotAsked"])
      for (let index = 0; index < 10; index++) yield* pull()
      yield* minute
      // A peer's request is none of containerd's.
      yield* request(true)
      yield* minute
      assert.lengthOf(lines, 1)
      yield* request()
      yield* minute
      assert.deepStrictEqual(lines.slice(1), ["Info containerd uses this mirror: it asks for images"])
      assert.deepStrictEqual(yield* known(faults), [])
    }))

  it.effect("says nothing of 200 pulls with requests", () =>
    Effect.gen(function*() {
      const { lines, pull, request } = yield* start()
      for (let index = 0; index < 200; index++) {
        yield* request()
        yield* pull()
        yield* TestClock.adjust("1 second")
      }
      yield* minute
      assert.deepStrictEqual(lines, [])
    }))

  it.effect("says nothing of large images that were begun together, and end one after another", () =>
    Effect.gen(function*() {
      const { lines, pull, request } = yield* start()
      yield* request()
      for (let minutes = 10; minutes < 20; minutes++) {
        yield* minute
        yield* pull({}, (minutes - 9) * 60_000)
      }
      yield* minute
      assert.deepStrictEqual(lines, [])
    }))

  it.effect("says nothing of pulls that began before the mirror was ready, nor of images that it leaves out", () =>
    Effect.gen(function*() {
      const { lines, pull } = yield* start()
      yield* pull({}, 25_000)
      const reference = {
        registry: "left-out.example",
        repository: "team/app",
        digest: Digest.ofBytes(Buffer.from("left out"))
      }
      yield* pull({ reference, keepsLayers: Option.some(false) })
      yield* minute
      assert.deepStrictEqual(lines, [])
    }))

  it.effect("does not take one pull for proof while a Service may lead it to the mirror before this one", () =>
    Effect.gen(function*() {
      const { faults, lines, pull } = yield* start(true)
      yield* pull({}, 10_000)
      yield* minute
      assert.deepStrictEqual(lines, [])
      yield* pull()
      yield* minute
      assert.deepStrictEqual(yield* known(faults), ["NotAsked"])
    }))

  it.effect("takes a pull that went to another node's mirror for an exception", () =>
    Effect.gen(function*() {
      const { lines, pull, request } = yield* start()
      // The first pull of all, and the next one comes soon.
      yield* pull()
      yield* TestClock.adjust("10 seconds")
      yield* request()
      yield* minute
      yield* pull()
      yield* minute
      yield* pull()
      yield* minute
      yield* request()
      yield* pull()
      yield* minute
      yield* pull()
      yield* minute
      yield* pull()
      yield* minute
      assert.deepStrictEqual(lines, [])
      yield* pull()
      yield* minute
      assert.lengthOf(lines, 1, "three in a row are no exception")
    }))

  it.effect("says what is known of containerd's configuration only once", () =>
    Effect.gen(function*() {
      const { faults, lines, pull, request } = yield* start()
      yield* faults.raise("ConfigPathUnset", "set config_path")
      yield* faults.raise("UpgradeWillIgnoreConfigPath", "name one directory")
      yield* pull()
      yield* minute
      assert.deepStrictEqual(lines, [])
      yield* request()
      yield* minute
      assert.deepStrictEqual(
        yield* known(faults),
        ["UpgradeWillIgnoreConfigPath"],
        "containerd itself shows that it uses the mirror"
      )
    }))

  it.effect("says once that layers are discarded, and that they are kept again", () =>
    Effect.gen(function*() {
      const { faults, lines, pull, request } = yield* start()
      yield* request()
      yield* pull({ keepsLayers: Option.none() })
      assert.deepStrictEqual(lines, [])
      for (let index = 0; index < 3; index++) yield* pull({ keepsLayers: Option.some(false) })
      yield* pull({ keepsLayers: Option.none() })
      assert.lengthOf(lines, 1)
      assert.match(lines[0] ?? "", /^Warn containerd discards layers .*discard_unpacked_layers = false/)
      assert.deepStrictEqual(yield* known(faults), ["LayersDiscarded"])
      yield* pull()
      assert.lengthOf(lines, 2)
      assert.match(lines[1] ?? "", /^Info containerd keeps layers/)
      assert.deepStrictEqual(yield* known(faults), [])
    }))
})
