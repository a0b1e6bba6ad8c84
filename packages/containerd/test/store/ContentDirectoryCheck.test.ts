import { assert, describe, it } from "@effect/vitest"
import type { Image } from "@spegel-ts/containerd/ContainerdClient"
import * as ContentDirectoryCheck from "@spegel-ts/containerd/internal/store/ContentDirectoryCheck"
import { ContentNotFound } from "@spegel-ts/content/ContentStore"
import * as Digest from "@spegel-ts/oci/Digest"
import { Effect, Logger } from "effect"
import { TestClock } from "effect/testing"

const imageOf = (name: string): Image => ({
  name: `registry.example/${name}:v1`,
  digest: Digest.ofBytes(Buffer.from(name)),
  mediaType: "application/vnd.oci.image.manifest.v1+json",
  size: 1
})

/** A check of a directory that has `held`, while containerd has `images`. */
const start = Effect.gen(function*() {
  const images: Array<Image> = []
  const held = new Set<Digest.Digest>()
  let comparisons = 0
  const check = yield* ContentDirectoryCheck.make({
    client: { contentRoot: Effect.succeed("/var/lib/containerd") },
    directory: {
      size: (digest) => held.has(digest) ? Effect.succeed(1) : Effect.fail(new ContentNotFound({ content: digest }))
    },
    contentPath: "/content",
    contentPathSetting: "--content-path",
    images: Effect.sync(() => {
      comparisons++
      return images
    })
  })
  return { check, held, images, comparisons: () => comparisons }
})

/** Runs an effect with the lines that it logs. */
const withLog = <A, E, R>(body: (lines: ReadonlyArray<string>) => Effect.Effect<A, E, R>) => {
  const lines: Array<string> = []
  const logger = Logger.make<unknown, void>(({ logLevel, message }) => {
    lines.push(`${logLevel} ${String(message)}`)
  })
  return Effect.provide(body(lines), Logger.layer([logger]))
}

const pass = TestClock.adjust("5 seconds")

describe("ContentDirectoryCheck", () => {
  it.effect("compares nothing for an image that is there", () =>
    Effect.gen(function*() {
      const { check, comparisons, held, images } = yield* start
      for (const name of ["one", "two", "three"]) {
        const image = imageOf(name)
        images.push(image)
        held.add(image.digest)
        yield* check.image(image)
        yield* pass
      }
      assert.strictEqual(comparisons(), 0)
    }))

  it.effect("does not miss an image with another digest than sha256, which is not served", () =>
    withLog((lines) =>
      Effect.gen(function*() {
        const { check, held, images } = yield* start
        const there = imageOf("there")
        held.add(there.digest)
        images.push(there, { ...imageOf("other"), digest: Digest.Digest.make(`sha512:${"a".repeat(128)}`) })
        yield* check.all
        yield* pass
        assert.deepStrictEqual(lines, [])
      })
    ))

  it.effect("warns of an image that is missing, and tells when it is there, whichever image changes then", () =>
    withLog((lines) =>
      Effect.gen(function*() {
        const { check, held, images } = yield* start
        const [there, missing] = [imageOf("there"), imageOf("missing")]
        images.push(there, missing)
        held.add(there.digest)
        yield* check.image(missing)
        yield* pass
        assert.strictEqual(lines.length, 1)
        assert.match(lines[0] ?? "", /^Warn .* lacks what it has, such as registry\.example\/missing:v1/)
        held.add(missing.digest)
        yield* check.image(there)
        yield* pass
        assert.strictEqual(lines.length, 2)
        assert.match(lines[1] ?? "", /^Info .* has containerd's content now/)
      })
    ))
})
