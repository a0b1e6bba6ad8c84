import { assert, describe, it } from "@effect/vitest"
import { ContainerdNotFound, type Creator, ImageEvent } from "@spegel-ts/containerd/ContainerdClient"
import * as KubeletPulls from "@spegel-ts/containerd/KubeletPulls"
import { ContentStore } from "@spegel-ts/content/ContentStore"
import * as MemoryStore from "@spegel-ts/content/MemoryStore"
import * as Digest from "@spegel-ts/oci/Digest"
import * as Reference from "@spegel-ts/oci/Reference"
import { Clock, Effect, Layer, Option, Queue, Stream } from "effect"
import { TestClock } from "effect/testing"

type Labels = Readonly<Record<string, string>>

const manifestOf = (layers: number) =>
  Buffer.from(JSON.stringify({
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.manifest.v1+json",
    config: {
      mediaType: "application/vnd.oci.image.config.v1+json",
      digest: Digest.ofBytes(Buffer.from("c")),
      size: 1
    },
    layers: Array.from({ length: layers }, (_, index) => ({
      mediaType: "application/vnd.oci.image.layer.v1.tar",
      digest: Digest.ofBytes(Buffer.from(`layer ${index}`)),
      size: 1
    }))
  }))

const config = { "containerd.io/gc.ref.content.config": Digest.ofBytes(Buffer.from("c")) }
const layer = { "containerd.io/gc.ref.content.l.0": Digest.ofBytes(Buffer.from("layer 0")) }
const source = { "containerd.io/distribution.source.registry.example": "team/app" }

/** A containerd whose records are told of by hand, and what is taken for the kubelet's pulls. */
const start = Effect.gen(function*() {
  const services = yield* Layer.build(MemoryStore.layer)
  const content = yield* Effect.provide(MemoryStore.MemoryContent, services)
  const store = yield* Effect.provide(ContentStore, services)
  const events = yield* Queue.unbounded<ImageEvent>()
  const infos = new Map<string, { readonly labels: Labels; readonly createdAt: number }>()
  const shared = new Set<Digest.Digest>()
  const images = new Map<string, Digest.Digest>()
  const pulls: Array<KubeletPulls.KubeletPull> = []
  const find = <A>(map: ReadonlyMap<string, A>, subject: string) =>
    Effect.fromOption(Option.fromUndefinedOr(map.get(subject))).pipe(
      Effect.mapError(() => new ContainerdNotFound({ operation: "look up", subject }))
    )
  yield* Effect.forkScoped(
    KubeletPulls.follow({
      client: {
        events: Stream.fromQueue(events),
        contentInfo: (digest) => find(infos, digest),
        isShared: (digest) => Effect.sync(() => shared.has(digest)),
        image: (name) => Effect.map(find(images, name), (digest) => ({ name, digest, mediaType: "", size: 1 }))
      },
      store,
      onPull: (pull) => Effect.sync(() => pulls.push(pull))
    }),
    { startImmediately: true }
  )
  // The clock is moved before what was offered is taken.
  const settle = Effect.repeat(TestClock.adjust("1 second"), { times: 5 })
  yield* settle

  const record = (name: string, createdBy: Creator) => Queue.offer(events, ImageEvent.ImageChanged({ name, createdBy }))
  return {
    images,
    infos,
    shared,
    record,
    /** The names of the pulls told since the last call. */
    told: Effect.map(settle, () => pulls.splice(0)),
    /** A manifest comes, with labels. */
    fetch: Effect.fnUntraced(function*(bytes: Uint8Array, of: Labels) {
      const digest = yield* content.put(bytes)
      infos.set(digest, { labels: of, createdAt: yield* Clock.currentTimeMillis })
      return { digest, name: `registry.example/team/app@${digest}` }
    })
  }
})

const kept = { ...source, ...config, ...layer }

describe("KubeletPulls", () => {
  it.effect("tells of a pull, and of when its manifest came", () =>
    Effect.gen(function*() {
      const { fetch, record, told } = yield* start
      const { digest, name } = yield* fetch(manifestOf(1), kept)
      // Its layers take their time.
      yield* TestClock.adjust("10 minutes")
      yield* record("registry.example/team/app:v1", "kubelet")
      yield* record("sha256:00", "kubelet")
      yield* record(name, "kubelet")
      const [pull, ...more] = yield* told
      assert.deepStrictEqual(more, [])
      assert.strictEqual(pull === undefined ? "" : Reference.print(pull.reference), name)
      assert.deepStrictEqual(pull?.keepsLayers, Option.some(true))
      assert.strictEqual(pull?.reference.digest, digest)
      assert.isAtMost(pull?.fetchedAt ?? Infinity, 60_000)
    }))

  it.effect("tells of it once, however often it is pulled", () =>
    Effect.gen(function*() {
      const { fetch, record, told } = yield* start
      const { name } = yield* fetch(manifestOf(1), kept)
      yield* record(name, "kubelet")
      assert.lengthOf(yield* told, 1)
      yield* record(name, "none")
      yield* record(name, "kubelet")
      assert.lengthOf(yield* told, 0)
    }))

  it.effect("takes nothing else for a pull", () =>
    Effect.gen(function*() {
      const { fetch, images, infos, record, shared, told } = yield* start
      const imported = yield* fetch(manifestOf(1), { ...config, ...layer })
      yield* record(imported.name, "kubelet")
      assert.lengthOf(yield* told, 0, "an import that an agent labels as the CRI plugin does")

      const sideLoaded = yield* fetch(manifestOf(2), kept)
      yield* record(sideLoaded.name, "other")
      yield* record(sideLoaded.name, "none")
      assert.lengthOf(yield* told, 0, "a pull by ctr, taken over by the CRI plugin")
      yield* record(sideLoaded.name, "kubelet")
      assert.lengthOf(yield* told, 0, "a pull of what ctr has pulled")

      const tagged = yield* fetch(manifestOf(3), kept)
      images.set("registry.example/team/app:side", tagged.digest)
      yield* record("registry.example/team/app:side", "other")
      yield* record(tagged.name, "kubelet")
      assert.lengthOf(yield* told, 0, "a pull of what ctr has pulled by its tag")

      const held = Digest.ofBytes(Buffer.from("held"))
      infos.set(held, { labels: kept, createdAt: -1 })
      yield* record(`registry.example/team/app@${held}`, "kubelet")
      assert.lengthOf(yield* told, 0, "a pull of what was held before")

      const docker = yield* fetch(manifestOf(5), kept)
      shared.add(docker.digest)
      yield* record(docker.name, "kubelet")
      assert.lengthOf(yield* told, 0, "a pull of what another namespace has fetched")

      yield* record("registry.example/team/app:gone", "other")
      yield* record(`registry.example/team/app@${Digest.ofBytes(Buffer.from("gone"))}`, "kubelet")
      const { name } = yield* fetch(manifestOf(4), kept)
      yield* record(name, "kubelet")
      assert.lengthOf(yield* told, 1, "and goes on")
    }))

  it.effect("knows whether layers are kept, by the manifest of this node's platform", () =>
    Effect.gen(function*() {
      const { fetch, record, told } = yield* start
      const keeps = Effect.fnUntraced(function*(name: string) {
        yield* record(name, "kubelet")
        return (yield* told).map(({ keepsLayers }) => Option.getOrUndefined(keepsLayers))
      })
      const discarded = yield* fetch(manifestOf(1), { ...source, ...config })
      assert.deepStrictEqual(yield* keeps(discarded.name), [false])
      const empty = yield* fetch(manifestOf(0), { ...source, ...config })
      assert.deepStrictEqual(yield* keeps(empty.name), [undefined], "an image without layers")
      const unknownType = { "containerd.io/gc.ref.content.0": Digest.ofBytes(Buffer.from("layer 0")) }
      const artefact = yield* fetch(manifestOf(3), { ...source, ...config, ...unknownType })
      assert.deepStrictEqual(yield* keeps(artefact.name), [true], "layers that containerd does not know as such")
      const absent = Digest.ofBytes(Buffer.from("another platform"))
      const index = (own: string, text: string) =>
        fetch(Buffer.from(text), {
          ...source,
          "containerd.io/gc.ref.content.m.0": absent,
          "containerd.io/gc.ref.content.m.1": own
        })
      assert.deepStrictEqual(yield* keeps((yield* index(discarded.digest, "one")).name), [false])
      const whole = yield* fetch(manifestOf(2), kept)
      assert.deepStrictEqual(yield* keeps((yield* index(whole.digest, "two")).name), [true])
    }))

  it.effect("remembers a bounded number of what others have pulled, the latest", () =>
    Effect.gen(function*() {
      const { fetch, record, told } = yield* start
      const first = yield* fetch(manifestOf(1), kept)
      const last = yield* fetch(manifestOf(2), kept)
      yield* record(first.name, "other")
      for (let index = 0; index < 5000; index++) {
        yield* record(`registry.example/team/app@${Digest.ofBytes(Buffer.from(`pulled ${index}`))}`, "other")
      }
      yield* record(last.name, "other")
      yield* record(first.name, "kubelet")
      yield* record(last.name, "kubelet")
      assert.deepStrictEqual((yield* told).map(({ reference }) => reference.digest), [first.digest])
    }))

  it.effect("tells of it again where it was removed and fetched anew", () =>
    Effect.gen(function*() {
      const { fetch, record, told } = yield* start
      const { name } = yield* fetch(manifestOf(1), kept)
      yield* record(name, "kubelet")
      assert.lengthOf(yield* told, 1)
      yield* fetch(manifestOf(1), kept)
      yield* record(name, "kubelet")
      assert.lengthOf(yield* told, 1)
    }))

  it.effect("takes what the clock says will be fetched for fetched now", () =>
    Effect.gen(function*() {
      const { fetch, infos, record, told } = yield* start
      const { digest, name } = yield* fetch(manifestOf(1), kept)
      infos.set(digest, { labels: kept, createdAt: 3_600_000 })
      yield* record(name, "kubelet")
      const [pull] = yield* told
      assert.isAtMost(pull?.fetchedAt ?? Infinity, yield* Clock.currentTimeMillis)
    }))
})
