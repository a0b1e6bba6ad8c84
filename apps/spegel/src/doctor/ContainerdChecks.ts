/** Checks of containerd itself: does it answer, is the namespace right, is the content directory its own, is there a CRI? */
import type { ContainerdClient, ContainerdUnavailable, CriPlugin } from "@spegel-ts/containerd/ContainerdClient"
import { registryImages } from "@spegel-ts/containerd/ContainerdClient"
import * as ContentDirectory from "@spegel-ts/containerd/ContentDirectory"
import * as Digest from "@spegel-ts/oci/Digest"
import { Effect } from "effect"
import { readdir, stat } from "node:fs/promises"
import { join } from "node:path"
import { type Check, ok, problem, skipped, warning } from "./Check.ts"

type Client = typeof ContainerdClient.Service

/** The kubelet's namespace, whatever the settings say. */
const kubeletNamespace = "k8s.io"

export const socketAnswers = (version: string, path: string): Check =>
  ok("socket", `containerd ${version} answers on ${path}`)

export const socketFails = ({ hint }: ContainerdUnavailable): Check =>
  problem("socket", hint, "make containerd's socket reachable for this command and for the mirror (--containerd-sock)")

/** Whether the namespace is one that has images. */
export const namespace = Effect.fnUntraced(
  function*(client: Client, { hasCri, name }: { readonly hasCri: boolean; readonly name: string }) {
    const names = yield* client.namespaces
    const images = yield* client.images([registryImages])
    const advice =
      `set --containerd-namespace to the one with the images that are to be mirrored (the kubelet's is ${kubeletNamespace})`
    if (hasCri && name !== kubeletNamespace) {
      return problem("namespace", `${name} is not the kubelet's namespace`, advice)
    }
    if (images.length > 0) return ok("namespace", `${name} has ${images.length} images`)
    const others = names.filter((other) => other !== name)
    if (names.includes(name)) return ok("namespace", `${name} has no images yet`)
    return name === kubeletNamespace
      ? ok("namespace", `${name} will be made with the first image`)
      : problem("namespace", `containerd has no namespace ${name}, but ${others.join(", ") || "none at all"}`, advice)
  }
)

/** The reason why the blobs of a directory cannot be listed. `undefined` if they can, or if there are none. */
const unreadable = (contentPath: string) =>
  readdir(join(contentPath, "blobs", "sha256")).then(
    () => undefined,
    (cause: NodeJS.ErrnoException) => cause.code === "ENOENT" ? undefined : cause.message
  )

const hasFile = (contentPath: string) => (digest: Digest.Digest) =>
  Effect.promise(() =>
    stat(join(contentPath, "blobs", Digest.algorithm(digest), Digest.hex(digest))).then(() => true, () => false)
  )

/** Whether the content directory is the one of this containerd. Inside a container its path may differ. */
export const content = Effect.fnUntraced(function*(client: Client, contentPath: string) {
  const root = yield* client.contentRoot
  const advice =
    `containerd keeps its content in ${root}: set --containerd-content-path to it, and mount it in a container`
  const reason = yield* Effect.promise(() => unreadable(contentPath))
  if (reason !== undefined) return problem("content", reason, "let the mirror's user read the content directory")
  const images = client.images([registryImages])
  const comparison = yield* ContentDirectory.compare({ client, contentPath, images, has: hasFile(contentPath) })
  return ContentDirectory.Comparison.$match(comparison, {
    Same: () => ok("content", `${contentPath} has containerd's content`),
    Lacks: ({ image }) => problem("content", `${contentPath} lacks what containerd has, such as ${image}`, advice),
    OtherPlace: () => problem("content", `${contentPath} is another directory than containerd's`, advice),
    NoImages: ({ isThere }) =>
      isThere || contentPath === root
        ? ok("content", `${contentPath}, and containerd has no images to compare yet`)
        : warning("content", `${contentPath} does not exist, and containerd has no images to compare`, advice)
  })
})

/** Whether the kubelet can use this containerd. */
export const cri = (plugin: CriPlugin): Check => {
  switch (plugin._tag) {
    case "Loaded":
      return ok("cri", "the CRI plugin runs")
    case "Missing":
      return skipped(
        "cri",
        "containerd runs without its CRI plugin (disabled_plugins): no kubelet can use it, and ctr and nerdctl read hosts.toml " +
          "only with --hosts-dir"
      )
    case "Failed":
      return problem(
        "cri",
        `containerd's CRI plugin did not start: ${plugin.reason}`,
        "correct containerd's configuration file and restart containerd: the kubelet needs the CRI plugin"
      )
  }
}
