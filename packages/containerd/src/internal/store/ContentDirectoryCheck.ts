/** Notices a content directory that is not this containerd's, and says so. */
import * as Background from "@spegel-ts/background/Background"
import type { BlobDirectory } from "@spegel-ts/content/BlobDirectory"
import { Effect, Queue, type Scope } from "effect"
import type { ContainerdClient, ContainerdFailed, ContainerdUnavailable, Image } from "../../ContainerdClient.ts"
import * as ContentDirectory from "../../ContentDirectory.ts"

export interface ContentDirectoryCheck {
  /** Compares all images in the background. */
  readonly all: Effect.Effect<void>
  /** Looks for an image that has just changed. Compares all images only if it is missing, or if something was wrong. */
  readonly image: (image: Image) => Effect.Effect<void>
}

/** Logs once what is wrong, and once when it is right again. */
export const make = Effect.fnUntraced(function*(options: {
  readonly client: Pick<typeof ContainerdClient.Service, "contentRoot">
  readonly directory: Pick<BlobDirectory, "size">
  readonly contentPath: string
  /** How users know the setting of that path. */
  readonly contentPathSetting: string
  /** Images of containerd's namespace now. */
  readonly images: Effect.Effect<ReadonlyArray<Image>, ContainerdUnavailable | ContainerdFailed>
}): Effect.fn.Return<ContentDirectoryCheck, never, Scope.Scope> {
  const { client, contentPath, contentPathSetting, directory, images } = options
  const looks = yield* Queue.sliding<void>(1)
  const has = (digest: Image["digest"]) =>
    directory.size(digest).pipe(
      Effect.as(true),
      Effect.catchTag("ContentNotFound", () => Effect.succeed(false))
    )

  let wasWrong = false
  const check = Effect.gen(function*() {
    const root = yield* client.contentRoot
    const comparison = yield* ContentDirectory.compare({ client, contentPath, images, has })
    const isWrong = comparison._tag === "Lacks" || comparison._tag === "OtherPlace"
    if (isWrong === wasWrong) return
    wasWrong = isWrong
    if (!isWrong) return yield* Effect.logInfo(`${contentPath} has containerd's content now`)
    const lack = comparison._tag === "Lacks" ? ` and lacks what it has, such as ${comparison.image}` : ""
    yield* Effect.logWarning(
      `${contentPath} is not this containerd's content directory${lack}: nothing of it can be given to peers; ` +
        `containerd keeps its content in ${root}: mount that, and set ${contentPathSetting} to it`
    )
  }).pipe(
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
