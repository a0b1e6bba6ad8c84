/**
 * Pulls an image through containerd that only the mirror can serve, and removes it again: the proof that the kubelet's pulls reach
 * the mirror.
 */
import type { ContainerdClient, CriPlugin } from "@spegel-ts/containerd/ContainerdClient"
import * as Canary from "@spegel-ts/registry/Canary"
import { Effect, Option, Schedule } from "effect"
import { type Check, ok, problem, skipped, warning } from "./Check.ts"

type Client = typeof ContainerdClient.Service

/** The check, and whether containerd kept the image's layer; none if that is not known. */
export interface Pulled {
  readonly check: Check
  readonly keptLayer: Option.Option<boolean>
}

const nothing = (check: Check): Pulled => ({ check, keptLayer: Option.none() })

/** Waits until containerd has collected what it removed. */
const collected = (client: Client, { digest }: Canary.CanaryImage) =>
  client.contentInfo(digest).pipe(
    Effect.as(false),
    Effect.catchTag("ContainerdNotFound", () => Effect.succeed(true)),
    Effect.filterOrFail((isGone) => isGone, () => "still there" as const),
    Effect.retry({ schedule: Schedule.spaced("200 millis"), times: 25 }),
    Effect.orElseSucceed(() => false)
  )

/** A manifest's labels say which layers containerd keeps; a discarded one never gets a label. */
const isLayerKept = (client: Client, { digest }: Canary.CanaryImage) =>
  client.contentInfo(digest).pipe(
    Effect.map(({ labels }) =>
      Object.keys(labels).some((label) => label.startsWith("containerd.io/gc.ref.content.l."))
    ),
    Effect.option
  )

const pull = Effect.fnUntraced(function*(client: Client, registry: string, image: Canary.CanaryImage) {
  const name = `${registry}/${image.repository}@${image.digest}`
  const failure = yield* client.criPull(name).pipe(
    Effect.as(undefined),
    Effect.catch((error) => Effect.succeed(error._tag === "ContainerdFailed" ? error.detail : error.message)),
    // Also after an interruption, and after a pull that failed half way.
    Effect.onInterrupt(() => Effect.ignore(client.criRemove(name)))
  )
  const keptLayer = failure === undefined ? yield* isLayerKept(client, image) : Option.none<boolean>()
  const removal = yield* Effect.result(client.criRemove(name))
  if (failure !== undefined) {
    return nothing(problem(
      "canary",
      `containerd could not pull what only this mirror has (${name}): ${failure}`,
      "see the other checks: containerd did not ask the mirror, or the mirror did not take the request for its own node's"
    ))
  }
  const isGone = removal._tag === "Success" && (yield* collected(client, image))
  const check = isGone
    ? ok("canary", "containerd pulled an image that only this mirror has, and it was removed again")
    : warning(
      "canary",
      `containerd pulled an image that only this mirror has; what is left of it is removed by its next garbage collection${
        removal._tag === "Failure" ? ` (${removal.failure.message})` : ""
      }`
    )
  return { check, keptLayer }
})

/** Pulls the image under the name of a registry. */
export const check = (
  client: Client,
  { cri, registry }: { readonly cri: CriPlugin; readonly registry: string }
): Effect.Effect<Pulled> => {
  if (cri._tag !== "Loaded") {
    return Effect.succeed(nothing(skipped("canary", "no CRI plugin: a pull as the kubelet makes it cannot be tried")))
  }
  const image = Canary.make()
  return image === undefined
    ? Effect.succeed(nothing(skipped("canary", `there is no canary for ${process.arch}`)))
    : pull(client, registry, image)
}
