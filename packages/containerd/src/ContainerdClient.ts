/**
 * containerd's gRPC API over its unix socket: the few calls that a mirror needs. The wire format is the same from
 * containerd 1.6 to 2.3; blobs are read as files, never through this API.
 */
import { fromBinary } from "@bufbuild/protobuf"
import { timestampMs } from "@bufbuild/protobuf/wkt"
import * as Digest from "@spegel-ts/oci/Digest"
import { Context, Data, Duration, Effect, Layer, Option, Result, Stream } from "effect"
import { Content } from "./internal/gen/content_pb.ts"
import { type Envelope, Events } from "./internal/gen/events_pb.ts"
import {
  type Image as ImageMessage,
  ImageCreateSchema,
  ImageDeleteSchema,
  Images,
  ImageUpdateSchema
} from "./internal/gen/images_pb.ts"
import { Introspection } from "./internal/gen/introspection_pb.ts"
import { Namespaces } from "./internal/gen/namespaces_pb.ts"
import { RuntimeService } from "./internal/gen/runtime_pb.ts"
import { Version } from "./internal/gen/version_pb.ts"
import {
  type GrpcError,
  GrpcStatus,
  make as makeChannel,
  serverStream,
  unary,
  withHeader
} from "./internal/grpc/GrpcChannel.ts"
import { diagnose } from "./internal/grpc/SocketDiagnosis.ts"

/** containerd cannot be talked to: no socket, no permission, no answer, or no containerd. */
export class ContainerdUnavailable extends Data.TaggedError("ContainerdUnavailable")<{
  readonly operation: string
  readonly socket: string
  /** What a person can do about it. */
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
 * Who made an image record: the CRI plugin, by a pull of the kubelet, or another client such as `ctr`; `none` where the
 * record was there before. The plugin takes over the records of others, but only by an update.
 */
export type Creator = "kubelet" | "other" | "none"

/** The CRI plugin's label of image records. */
const managedByCri = "io.cri-containerd.image"

export interface ContainerdClientOptions {
  /** Path of containerd's socket, `/run/containerd/containerd.sock` as a rule. */
  readonly socket: string
  /** containerd's namespace: `k8s.io` for images pulled by the kubelet. */
  readonly namespace: string
  /** Limit for each call but the event stream. Default: 5 seconds. */
  readonly deadline?: Duration.Input
}

/** The filter for images that a registry can have: it leaves out CRI's `sha256:<config>` names. */
export const registryImages = "name~=\"^.+/\""

export interface ContentInfo {
  readonly labels: Readonly<Record<string, string>>
  /** When the namespace got it, in milliseconds since the epoch, by the node's clock. */
  readonly createdAt: number
}

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
   * Image changes, beginning with `Subscribed`. Fails when containerd goes away, or refuses the subscription; whoever
   * subscribes again has missed what happened meanwhile.
   */
  readonly events: Stream.Stream<ImageEvent, ContainerdUnavailable | ContainerdFailed>
  /** What containerd keeps with a blob of the namespace. */
  readonly contentInfo: (
    digest: Digest.Digest
  ) => Effect.Effect<ContentInfo, ContainerdNotFound | ContainerdUnavailable | ContainerdFailed>
  /** Whether another namespace has the blob, too. Namespaces share files: one gets what another has without a download. */
  readonly isShared: (digest: Digest.Digest) => Effect.Effect<boolean, ContainerdUnavailable | ContainerdFailed>
  /** The CRI plugin's own account of its configuration, JSON; none where it gives none. */
  readonly criConfig: Effect.Effect<Option.Option<string>, ContainerdUnavailable | ContainerdFailed>
  /** Throws away what was downloaded of an ingest, of any namespace. A pull of it that still runs fails. */
  readonly abortIngest: (
    ingest: { readonly namespace: string; readonly ref: string }
  ) => Effect.Effect<void, ContainerdNotFound | ContainerdUnavailable | ContainerdFailed>
  /** The content store's directory, as containerd sees it (not as a container with other mounts does). */
  readonly contentRoot: Effect.Effect<string, ContainerdUnavailable | ContainerdFailed>
  /** containerd's version, for example `1.6.20~ds1`. */
  readonly version: Effect.Effect<string, ContainerdUnavailable | ContainerdFailed>
}>()("@spegel-ts/containerd/ContainerdClient") {
  /** Fails at once if nothing, or something else, listens on the socket. */
  static readonly layer = (
    options: ContainerdClientOptions
  ): Layer.Layer<ContainerdClient, ContainerdUnavailable | ContainerdFailed> => Layer.effect(this, connect(options))
}

const namespaceHeader = "containerd-namespace"

const isUnavailable = (error: GrpcError) =>
  error.code === GrpcStatus.UNAVAILABLE ||
  error.code === GrpcStatus.DEADLINE_EXCEEDED ||
  error.code === GrpcStatus.UNIMPLEMENTED ||
  // The stream was reset under the call: containerd is going down.
  error.code === GrpcStatus.CANCELLED

const toImage = (image: ImageMessage | undefined): Option.Option<Image> => {
  const target = image?.target
  if (image === undefined || target === undefined) return Option.none()
  return Option.map(Digest.fromString(target.digest), (digest) => ({
    name: image.name,
    digest,
    mediaType: target.mediaType,
    size: Number(target.size)
  }))
}

const toEvent =
  (namespace: string) => ({ event, topic, ...envelope }: Envelope): Result.Result<ImageEvent, unknown> => {
    if (envelope.namespace !== namespace || event === undefined) return Result.failVoid
    // The topic tells the type: containerd 1.x writes type URLs in a way that `anyUnpack` does not know.
    switch (topic) {
      case "/images/create":
        return Result.try(() => {
          const { labels, name } = fromBinary(ImageCreateSchema, event.value)
          return ImageEvent.ImageChanged({ name, createdBy: Object.hasOwn(labels, managedByCri) ? "kubelet" : "other" })
        })
      case "/images/update":
        return Result.try(() =>
          ImageEvent.ImageChanged({ name: fromBinary(ImageUpdateSchema, event.value).name, createdBy: "none" })
        )
      case "/images/delete":
        return Result.try(() => ImageEvent.ImageRemoved({ name: fromBinary(ImageDeleteSchema, event.value).name }))
      default:
        return Result.failVoid
    }
  }

const connect = Effect.fnUntraced(function*(options: ContainerdClientOptions) {
  const { deadline = "5 seconds", namespace, socket } = options
  const channel = yield* makeChannel({
    socket,
    headers: { [namespaceHeader]: namespace },
    deadline: Duration.fromInputUnsafe(deadline)
  })

  const fail =
    (operation: string) => (error: GrpcError): Effect.Effect<never, ContainerdUnavailable | ContainerdFailed> =>
      isUnavailable(error)
        ? Effect.flatMap(
          diagnose(socket),
          (hint) => Effect.fail(new ContainerdUnavailable({ operation, socket, hint, cause: error }))
        )
        : Effect.fail(
          new ContainerdFailed({ operation, code: GrpcStatus[error.code] ?? String(error.code), detail: error.details })
        )
  /** An answer that the record is not there has a tag of its own. */
  const failOf =
    (operation: string, subject: string) =>
    (error: GrpcError): Effect.Effect<never, ContainerdNotFound | ContainerdUnavailable | ContainerdFailed> =>
      error.code === GrpcStatus.NOT_FOUND
        ? Effect.fail(new ContainerdNotFound({ operation, subject }))
        : fail(operation)(error)

  const version = unary(channel, Version.method.version, {}).pipe(
    Effect.map(({ version }) => version),
    Effect.catch(fail("ask containerd's version"))
  )

  /** The subscription is sent first, on the connection whose answer to `version` then shows that it is in place. */
  const subscription = Stream.unwrap(Effect.gen(function*() {
    const envelopes = yield* serverStream(channel, Events.method.subscribe, {
      filters: [`namespace==${namespace},topic~="^/images/"`]
    })
    yield* version
    return Stream.concat(
      Stream.make(ImageEvent.Subscribed()),
      envelopes.pipe(
        Stream.filterMap(toEvent(namespace)),
        Stream.catch((error) => Stream.fromEffect(fail("follow containerd's events")(error)))
      )
    )
  }))

  yield* version
  return ContainerdClient.of({
    images: Effect.fn("ContainerdClient.images")((filters = []) =>
      unary(channel, Images.method.list, { filters: [...filters] }).pipe(
        Effect.map(({ images }) => images.flatMap((image) => Option.toArray(toImage(image)))),
        Effect.catch(fail("list containerd's images"))
      )
    ),
    image: Effect.fn("ContainerdClient.image")((name) =>
      unary(channel, Images.method.get, { name }).pipe(
        Effect.catch(failOf("look up an image", name)),
        Effect.flatMap(({ image }) =>
          Effect.fromOption(toImage(image)).pipe(
            Effect.mapError(() => new ContainerdNotFound({ operation: "look up an image", subject: name }))
          )
        )
      )
    ),
    events: subscription.pipe(
      // A stream that ends without an error is a containerd that goes down, too.
      Stream.concat(Stream.fromEffect(Effect.flatMap(
        diagnose(socket),
        (hint) => Effect.fail(new ContainerdUnavailable({ operation: "follow containerd's events", socket, hint }))
      )))
    ),
    contentInfo: Effect.fn("ContainerdClient.contentInfo")((digest) =>
      unary(channel, Content.method.info, { digest }).pipe(
        Effect.map(({ info }): ContentInfo => ({
          labels: info?.labels ?? {},
          createdAt: info?.createdAt === undefined ? 0 : timestampMs(info.createdAt)
        })),
        Effect.catch(failOf("look up a blob", digest))
      )
    ),
    isShared: Effect.fn("ContainerdClient.isShared")((digest) =>
      unary(channel, Namespaces.method.list, {}).pipe(
        Effect.flatMap(({ namespaces }) =>
          Effect.findFirst(namespaces.filter(({ name }) => name !== namespace), ({ name }) =>
            unary(withHeader(channel, namespaceHeader, name), Content.method.info, { digest }).pipe(
              Effect.as(true),
              Effect.catchIf(({ code }) =>
                code === GrpcStatus.NOT_FOUND, () => Effect.succeed(false))
            ))
        ),
        Effect.map(Option.isSome),
        Effect.catch(fail("look for a blob in other namespaces"))
      )
    ),
    criConfig: unary(channel, RuntimeService.method.status, { verbose: true }).pipe(
      Effect.map(({ info }) => Option.fromUndefinedOr(info["config"])),
      Effect.catch(fail("ask the CRI plugin for its configuration"))
    ),
    abortIngest: Effect.fn("ContainerdClient.abortIngest")(({ namespace, ref }) =>
      unary(withHeader(channel, namespaceHeader, namespace), Content.method.abort, { ref }).pipe(
        Effect.asVoid,
        Effect.catch(failOf("abort an ingest", ref))
      )
    ),
    contentRoot: unary(channel, Introspection.method.plugins, { filters: ["type==io.containerd.content.v1"] }).pipe(
      Effect.catch(fail("ask where containerd keeps content")),
      Effect.map(({ plugins }) => plugins.flatMap(({ exports }) => exports["root"] ?? [])[0]),
      Effect.filterOrFail(
        (root) => root !== undefined,
        () =>
          new ContainerdFailed({
            operation: "ask where containerd keeps content",
            code: "NOT_FOUND",
            detail: "the content plugin is not loaded"
          })
      )
    ),
    version
  })
})
