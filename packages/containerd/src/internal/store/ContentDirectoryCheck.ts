/**
 * Notices a content directory that is not this containerd's: it belongs to another daemon or another root, or the wrong
 * directory was mounted. A container sees other paths than containerd does, so we compare contents, not paths.
 */
import * as Background from "@spegel-ts/background/Background"
import type { BlobDirectory } from "@spegel-ts/content/BlobDirectory"
import { Effect, Queue, type Scope, Stream } from "effect"
import { stat } from "node:fs/promises"
import type { ContainerdClient, ContainerdFailed, ContainerdUnavailable, Image } from "../../ContainerdClient.ts"

/** The most images that one check compares. */
const maxImages = 1000
/** containerd may be writing or removing the missing content at this moment, so we look twice. */
const secondLook = "1 second"

const placeOf = (path: string) =>
  Effect.promise(() => stat(path).then(({ dev, ino }) => `${dev} ${ino}`, () => undefined))

export interface ContentDirectoryCheck {
  /** Compares all images in the background. */
  readonly all: Effect.Effect<void>
  /** Looks for an image that has just changed. Compares all images only if it is missing, or if something was wrong. */
  readonly image: (image: Image) => Effect.Effect<void>
}

/** Logs once what is wrong, and once when it is right again. */
export const make = Effect.fnUntraced(function*(options: {
  readonly client: typeof ContainerdClient.Service
  readonly directory: Pick<BlobDirectory, "digests" | "size">
  readonly contentPath: string
  /** How users know the setting of that path. */
  readonly contentPathSetting: string
  /** Images of containerd's namespace now. */
  readonly images: Effect.Effect<ReadonlyArray<Image>, ContainerdUnavailable | ContainerdFailed>
}): Effect.fn.Return<ContentDirectoryCheck, never, Scope.Scope> {
  const { client, contentPath, contentPathSetting, directory, images } = options
  const looks = yield* Queue.sliding<void>(1)

  /** Images that containerd has and the directory lacks; undefined if containerd has none at all. */
  const missing = Effect.gen(function*() {
    const known = (yield* images).filter(({ digest }) => digest.startsWith("sha256:")).slice(0, maxImages)
    if (known.length === 0) return undefined
    const held = new Set<string>(yield* Stream.runCollect(directory.digests))
    return known.filter(({ digest }) => !held.has(digest))
  })

  /** Whether something is wrong, with an image that shows it if there is one. */
  const finding = Effect.gen(function*() {
    const root = yield* client.contentRoot
    const first = yield* missing
    if (first === undefined) {
      // Nothing to compare: two directories that are both in sight can still differ.
      const [theirs, ours] = yield* Effect.all([placeOf(root), placeOf(contentPath)])
      return { root, example: "", isWrong: theirs !== undefined && ours !== undefined && theirs !== ours }
    }
    if (first.length > 0) yield* Effect.sleep(secondLook)
    const second = first.length > 0 ? yield* missing : first
    const example = second?.find(({ digest, name }) =>
      first.some((image) => image.name === name && image.digest === digest)
    )
    return { root, example: example?.name ?? "", isWrong: example !== undefined }
  })

  let wasWrong = false
  const check = finding.pipe(
    Effect.flatMap(({ example, isWrong, root }) => {
      if (isWrong === wasWrong) return Effect.void
      wasWrong = isWrong
      if (!isWrong) return Effect.logInfo(`${contentPath} has containerd's content now`)
      const lack = example === "" ? "" : ` and lacks what it has, such as ${example}`
      return Effect.logWarning(
        `${contentPath} is not this containerd's content directory${lack}: nothing of it can be given to peers; ` +
          `containerd keeps its content in ${root}: mount that, and set ${contentPathSetting} to it`
      )
    }),
    // The store reports a containerd that is away.
    Effect.catch((error) => Effect.logDebug(`cannot compare ${contentPath} with containerd: ${error.message}`))
  )
  yield* Background.keepRunning("content directory check", Effect.forever(Effect.andThen(Queue.take(looks), check)))
  const all = Effect.asVoid(Queue.offer(looks, undefined))
  return {
    all,
    image: ({ digest }) =>
      Effect.suspend(() => wasWrong ? all : Effect.catch(Effect.asVoid(directory.size(digest)), () => all))
  }
})
