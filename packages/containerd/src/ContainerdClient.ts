/**
 * containerd's gRPC API over its unix socket: the few calls that a mirror needs. The wire format is the same from
 * containerd 1.6 to 2.3; blobs are read as files, never through this API.
 *
 * This module is small. gRPC, which takes memory, is loaded when the layer is built.
 */
import type * as Digest from "@spegel-ts/oci/Digest"
import { Context, Data, Effect, Layer, type Option, type Stream } from "effect"

/**
 * containerd cannot be talked to: no socket, no permission, no answer, or no containerd. `operation` says what was
 * tried. containerd may come back: its followers try again.
 */
export class ContainerdUnavailable extends Data.TaggedError("ContainerdUnavailable")<{
  readonly operation: string
  readonly socket: string
  /** Tells a person how to mend it. */
  readonly hint: string
  readonly cause?: unknown
}> {
  override get message() {
    return `${this.operation}: ${this.hint}`
  }
}

/** containerd answered that it does not have `subject` (an image name, an ingest). */
export class ContainerdNotFound extends Data.TaggedError("ContainerdNotFound")<{
  readonly operation: string
  readonly subject: string
}> {
  override get message() {
    return `${this.operation}: containerd does not have ${this.subject}`
  }
}

/** containerd answered with an error; `code` is the name of the gRPC status (`INVALID_ARGUMENT`). */
export class ContainerdFailed extends Data.TaggedError("ContainerdFailed")<{
  readonly operation: string
  readonly code: string
  readonly detail: string
}> {
  override get message() {
    return `${this.operation}: containerd answered ${this.code}: ${this.detail}`
  }
}

/** An image record: a name and what it points to. */
export interface Image {
  /** As containerd stores it: `docker.io/library/nginx:1`, `...@sha256:...`, or CRI's `sha256:<config>`. */
  readonly name: string
  readonly digest: Digest.Digest
  readonly mediaType: string
  readonly size: number
}

/**
 * A change of the image records of the namespace. `Subscribed` opens each subscription, also after containerd was
 * restarted: what happened before it is not known, list again.
 */
export type ImageEvent = Data.TaggedEnum<{
  Subscribed: {}
  /** Created or updated. The event does not carry the digest, and the image may be gone already. */
  ImageChanged: { readonly name: string; readonly createdBy: Creator }
  ImageRemoved: { readonly name: string }
}>
export const ImageEvent = Data.taggedEnum<ImageEvent>()

/**
 * The client that made an image record: `kubelet` is a pull by the CRI plugin, `other` another client such as `ctr`. `none`
 * means that the record was there before. The plugin takes over the records of others, but only by an update.
 */
export type Creator = "kubelet" | "other" | "none"

/** How to reach containerd. */
export interface ContainerdClientOptions {
  /** Path of containerd's socket, usually `/run/containerd/containerd.sock`. */
  readonly socket: string
  /** How users know the setting of this path, for messages: `--socket`. Default: `the path`. */
  readonly socketSetting?: string
  /** containerd's namespace: `k8s.io` for images pulled by the kubelet. */
  readonly namespace: string
}

/** A filter for `images`: only names with a registry, which leaves out CRI's `sha256:<config>` names. */
export const registryImages = "name~=\"^.+/\""

/** The CRI plugin, through which the kubelet uses containerd. */
export type CriPlugin = Data.TaggedEnum<{
  Loaded: {}
  /** It is disabled, or not a part of this containerd: the kubelet cannot use it. */
  Missing: {}
  /** It did not start; `reason` is containerd's. */
  Failed: { readonly reason: string }
}>
export const CriPlugin = Data.taggedEnum<CriPlugin>()

/** A blob's metadata in containerd. */
export interface ContentInfo {
  /** Among them the registry that it came from and the blobs that it refers to. */
  readonly labels: Readonly<Record<string, string>>
  /** When the namespace got it, in milliseconds since the epoch, by the node's clock. */
  readonly createdAt: number
}

/**
 * A connection to containerd. Calls fail with `ContainerdUnavailable` when containerd cannot be talked to, with
 * `ContainerdFailed` when it refuses, and with `ContainerdNotFound` if it does not have what is asked for.
 */
export class ContainerdClient extends Context.Service<ContainerdClient, {
  /**
   * Image records of the namespace that match any of the filters (containerd's filter syntax); all without filters.
   * Records whose digest is not a registered one are left out.
   */
  readonly images: (
    filters?: ReadonlyArray<string>
  ) => Effect.Effect<ReadonlyArray<Image>, ContainerdUnavailable | ContainerdFailed>
  /** The image record with exactly this name. */
  readonly image: (name: string) => Effect.Effect<Image, ContainerdNotFound | ContainerdUnavailable | ContainerdFailed>
  /**
   * Image changes, beginning with `Subscribed`. Fails when containerd goes away or refuses the subscription. A new
   * subscription does not tell what happened in between: list the images again.
   */
  readonly events: Stream.Stream<ImageEvent, ContainerdUnavailable | ContainerdFailed>
  /** Labels and age of a blob in the namespace. */
  readonly contentInfo: (
    digest: Digest.Digest
  ) => Effect.Effect<ContentInfo, ContainerdNotFound | ContainerdUnavailable | ContainerdFailed>
  /** Whether another namespace has the blob too. Namespaces share files, so this one may not have downloaded it. */
  readonly isShared: (digest: Digest.Digest) => Effect.Effect<boolean, ContainerdUnavailable | ContainerdFailed>
  /** The CRI plugin's own account of its configuration, as JSON; none if it gives none. */
  readonly criConfig: Effect.Effect<Option.Option<string>, ContainerdUnavailable | ContainerdFailed>
  readonly criPlugin: Effect.Effect<CriPlugin, ContainerdUnavailable | ContainerdFailed>
  /** Pulls an image as the kubelet does, within half a minute. Interruption cancels the pull. */
  readonly criPull: (image: string) => Effect.Effect<void, ContainerdUnavailable | ContainerdFailed>
  /** Removes an image with all its names, as the kubelet does. containerd then collects content that no other image uses. */
  readonly criRemove: (image: string) => Effect.Effect<void, ContainerdUnavailable | ContainerdFailed>
  /** The namespaces of this containerd. One appears with its first content. */
  readonly namespaces: Effect.Effect<ReadonlyArray<string>, ContainerdUnavailable | ContainerdFailed>
  /** Discards an ingest of any namespace. A pull that still writes to it fails. */
  readonly abortIngest: (
    ingest: { readonly namespace: string; readonly ref: string }
  ) => Effect.Effect<void, ContainerdNotFound | ContainerdUnavailable | ContainerdFailed>
  /** The content store's directory, as containerd sees it (not as a container with other mounts does). */
  readonly contentRoot: Effect.Effect<string, ContainerdUnavailable | ContainerdFailed>
  /** containerd's version, for example `1.6.20~ds1`. */
  readonly version: Effect.Effect<string, ContainerdUnavailable | ContainerdFailed>
}>()("@spegel-ts/containerd/ContainerdClient") {
  /** Building it fails if nothing, or something other than containerd, listens on the socket. */
  static readonly layer = (
    options: ContainerdClientOptions
  ): Layer.Layer<ContainerdClient, ContainerdUnavailable | ContainerdFailed> =>
    Layer.effect(
      this,
      Effect.promise(() => import("./internal/grpc/ContainerdCalls.ts")).pipe(
        Effect.flatMap(({ connect }) => connect(options))
      )
    )
}
