import { assert, describe, it } from "@effect/vitest"
import {
  ContainerdClient,
  ContainerdFailed,
  ContainerdNotFound,
  ContainerdUnavailable,
  type Image,
  ImageEvent
} from "@spegel-ts/containerd/ContainerdClient"
import * as ContainerdStore from "@spegel-ts/containerd/ContainerdStore"
import { ContentStore } from "@spegel-ts/content/ContentStore"
import * as Digest from "@spegel-ts/oci/Digest"
import * as Reference from "@spegel-ts/oci/Reference"
import { Effect, Layer, Queue, Stream } from "effect"
import { TestClock } from "effect/testing"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"

const imageOf = (name: string): Image => ({
  name: `registry.example/${name}:v1`,
  digest: Digest.ofBytes(Buffer.from(name)),
  mediaType: "application/vnd.oci.image.manifest.v1+json",
  size: 1
})

const unavailable = new ContainerdUnavailable({ operation: "ask", socket: "/no.sock", hint: "it is away" })
const refused = new ContainerdFailed({ operation: "ask", code: "INTERNAL", detail: "refused" })

/** A containerd whose answers fail as `failures` say, each once. */
const start = Effect.gen(function*() {
  const contentPath = yield* Effect.acquireRelease(
    Effect.promise(() => mkdtemp(join(tmpdir(), "spegel-containerd-"))),
    (directory) => Effect.promise(() => rm(directory, { recursive: true }))
  )
  const images = new Map<string, Image>()
  const events = yield* Queue.unbounded<ImageEvent>()
  const failures: Record<
    "events" | "images" | "image",
    Array<Effect.Effect<never, typeof unavailable | typeof refused>>
  > = {
    events: [],
    images: [],
    image: []
  }
  let subscriptions = 0
  const client = Layer.succeed(ContainerdClient, {
    images: () => Effect.suspend(() => failures.images.shift() ?? Effect.succeed([...images.values()])),
    image: (name) =>
      Effect.suspend((): Effect.Effect<Image, ContainerdNotFound | typeof unavailable | typeof refused> => {
        const image = images.get(name)
        return failures.image.shift() ??
          (image === undefined
            ? Effect.fail(new ContainerdNotFound({ operation: "look up", subject: name }))
            : Effect.succeed(image))
      }),
    events: Stream.suspend(() => {
      subscriptions++
      return Stream.concat(
        Stream.make(ImageEvent.Subscribed()),
        Stream.fromEffectRepeat(
          Effect.flatMap(Queue.take(events), (event) => failures.events.shift() ?? Effect.succeed(event))
        )
      )
    }),
    contentInfo: () => Effect.succeed({ labels: {}, createdAt: 0 }),
    isShared: () => Effect.succeed(false),
    criConfig: Effect.succeedNone,
    criPlugin: Effect.die("not asked"),
    criPull: () => Effect.die("not asked"),
    criRemove: () => Effect.die("not asked"),
    namespaces: Effect.die("not asked"),
    abortIngest: () => Effect.void,
    contentRoot: Effect.succeed(contentPath),
    version: Effect.succeed("2.1.0")
  })
  const services = yield* Layer.build(Layer.provide(ContainerdStore.layer({ contentPath }), client))
  const store = yield* Effect.provide(ContentStore, services)
  const names = Effect.map(
    Stream.runCollect(store.names),
    (found) => found.map(({ reference }) => Reference.name(reference)).toSorted()
  )
  const change = (name: string) => {
    const image = imageOf(name)
    images.set(image.name, image)
    return Queue.offer(events, ImageEvent.ImageChanged({ name: image.name, createdBy: "kubelet" }))
  }
  return { change, failures, images, names, subscriptions: () => subscriptions }
})

const pass = TestClock.adjust("5 seconds")

describe("ContainerdStore", () => {
  it.effect("follows events", () =>
    Effect.gen(function*() {
      const { change, names } = yield* start
      yield* pass
      yield* change("one")
      yield* pass
      assert.deepStrictEqual(yield* names, ["registry.example/one:v1"])
    }))

  const bug = Effect.sync((): never => {
    throw new TypeError("a bug")
  })
  for (
    const [how, failure] of [["is away", unavailable], ["refuses", refused], ["meets a bug of ours", bug]] as const
  ) {
    for (const part of ["events", "image"] as const) {
      it.effect(`misses nothing where it ${how} while it is asked for ${part}`, () =>
        Effect.gen(function*() {
          const { change, failures, names, subscriptions } = yield* start
          yield* pass
          failures[part].push(failure)
          yield* change("one")
          yield* pass
          assert.deepStrictEqual(failures[part], [])
          assert.strictEqual(subscriptions(), 2)
          yield* change("two")
          yield* pass
          assert.deepStrictEqual(yield* names, ["registry.example/one:v1", "registry.example/two:v1"])
        }))
    }

    it.effect(`misses nothing where it ${how} while it is asked for all images`, () =>
      Effect.gen(function*() {
        const { change, failures, images, names } = yield* start
        yield* pass
        failures.events.push(unavailable)
        // Longer than any number of attempts that somebody may have thought enough.
        for (let index = 0; index < 20; index++) failures.images.push(failure)
        yield* change("one")
        images.set("registry.example/meanwhile:v1", imageOf("meanwhile"))
        yield* TestClock.adjust("2 minutes")
        assert.deepStrictEqual(failures.images, [])
        assert.deepStrictEqual(yield* names, ["registry.example/meanwhile:v1", "registry.example/one:v1"])
      }))
  }
})
