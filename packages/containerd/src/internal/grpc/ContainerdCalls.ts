/** The calls of `ContainerdClient`, by the service of containerd that answers them. */
import { timestampMs } from "@bufbuild/protobuf/wkt"
import type * as Digest from "@spegel-ts/oci/Digest"
import { Duration, Effect, Option, Stream } from "effect"
import {
  ContainerdClient,
  type ContainerdClientOptions,
  ContainerdFailed,
  ContainerdNotFound,
  ContainerdUnavailable,
  type ContentInfo,
  CriPlugin,
  ImageEvent
} from "../../ContainerdClient.ts"
import { Content } from "../gen/content_pb.ts"
import { Events } from "../gen/events_pb.ts"
import { Images } from "../gen/images_pb.ts"
import { Introspection, type Plugin } from "../gen/introspection_pb.ts"
import { Namespaces } from "../gen/namespaces_pb.ts"
import { ImageService, RuntimeService } from "../gen/runtime_pb.ts"
import { Version } from "../gen/version_pb.ts"
import * as GrpcChannel from "./GrpcChannel.ts"
import { toEvent, toImage } from "./ImageEvents.ts"
import { diagnose } from "./SocketDiagnosis.ts"

const { GrpcStatus, serverStream, unary } = GrpcChannel

type Client = typeof ContainerdClient.Service

/** The connection that all calls share. */
interface Connection {
  readonly channel: GrpcChannel.GrpcChannel
  readonly namespace: string
  readonly unavailable: (operation: string, cause?: unknown) => Effect.Effect<never, ContainerdUnavailable>
}

/** Timeout of each call except the event stream. */
const deadline = Duration.seconds(5)

/** Timeout of a pull. */
const pullDeadline = Duration.seconds(30)

const namespaceHeader = "containerd-namespace"

/** The channel of a connection, for calls about another namespace. */
const within = ({ channel }: Connection, namespace: string) =>
  GrpcChannel.withHeader(channel, namespaceHeader, namespace)

const isUnavailable = ({ code }: GrpcChannel.GrpcError) =>
  code === GrpcStatus.UNAVAILABLE ||
  code === GrpcStatus.DEADLINE_EXCEEDED ||
  code === GrpcStatus.UNIMPLEMENTED ||
  // The stream was reset under the call: containerd is going down.
  code === GrpcStatus.CANCELLED

const fail = ({ unavailable }: Connection, operation: string) =>
(
  error: GrpcChannel.GrpcError
): Effect.Effect<never, ContainerdUnavailable | ContainerdFailed> =>
  isUnavailable(error)
    ? unavailable(operation, error)
    : Effect.fail(
      new ContainerdFailed({ operation, code: GrpcStatus[error.code] ?? String(error.code), detail: error.details })
    )

/** For calls whose subject containerd may not have. */
const failOf = (connection: Connection, operation: string, subject: string) =>
(
  error: GrpcChannel.GrpcError
): Effect.Effect<never, ContainerdNotFound | ContainerdUnavailable | ContainerdFailed> =>
  error.code === GrpcStatus.NOT_FOUND
    ? Effect.fail(new ContainerdNotFound({ operation, subject }))
    : fail(connection, operation)(error)

const versionOf = (connection: Connection): Client["version"] =>
  unary(connection.channel, Version.method.version, {}).pipe(
    Effect.map(({ version }) => version),
    Effect.catch(fail(connection, "ask containerd's version"))
  )

const imageCalls = (connection: Connection): Pick<Client, "image" | "images"> => {
  const { channel } = connection
  return {
    images: Effect.fn("ContainerdClient.images")((filters = []) =>
      unary(channel, Images.method.list, { filters: [...filters] }).pipe(
        Effect.map(({ images }) => images.flatMap((image) => Option.toArray(toImage(image)))),
        Effect.catch(fail(connection, "list containerd's images"))
      )
    ),
    image: Effect.fn("ContainerdClient.image")((name) =>
      unary(channel, Images.method.get, { name }).pipe(
        Effect.catch(failOf(connection, "look up an image", name)),
        Effect.flatMap(({ image }) =>
          Effect.fromOption(toImage(image)).pipe(
            Effect.mapError(() => new ContainerdNotFound({ operation: "look up an image", subject: name }))
          )
        )
      )
    )
  }
}

const eventsOf = (connection: Connection): Client["events"] => {
  const { channel, namespace, unavailable } = connection
  const operation = "follow containerd's events"
  return Stream.unwrap(Effect.gen(function*() {
    const envelopes = yield* serverStream(channel, Events.method.subscribe, {
      filters: [`namespace==${namespace},topic~="^/images/"`]
    })
    // The subscription was sent first on this connection: once this call is answered, the subscription is in place.
    yield* versionOf(connection)
    return Stream.concat(
      Stream.make(ImageEvent.Subscribed()),
      envelopes.pipe(
        Stream.filterMap(toEvent(namespace)),
        Stream.catch((error) => Stream.fromEffect(fail(connection, operation)(error)))
      )
    )
  })).pipe(
    // A stream that ends without an error is a containerd that goes down, too.
    Stream.concat(Stream.fromEffect(unavailable(operation)))
  )
}

const isHeldIn = (connection: Connection, namespace: string, digest: Digest.Digest) =>
  unary(within(connection, namespace), Content.method.info, { digest }).pipe(
    Effect.as(true),
    Effect.catchIf(({ code }) => code === GrpcStatus.NOT_FOUND, () => Effect.succeed(false))
  )

const contentCalls = (connection: Connection): Pick<Client, "abortIngest" | "contentInfo" | "isShared"> => {
  const { channel } = connection
  return {
    contentInfo: Effect.fn("ContainerdClient.contentInfo")((digest) =>
      unary(channel, Content.method.info, { digest }).pipe(
        Effect.map(({ info }): ContentInfo => ({
          labels: info?.labels ?? {},
          createdAt: info?.createdAt === undefined ? 0 : timestampMs(info.createdAt)
        })),
        Effect.catch(failOf(connection, "look up a blob", digest))
      )
    ),
    isShared: Effect.fn("ContainerdClient.isShared")((digest) =>
      unary(channel, Namespaces.method.list, {}).pipe(
        Effect.flatMap(({ namespaces }) =>
          Effect.findFirst(
            namespaces.filter(({ name }) => name !== connection.namespace),
            ({ name }) => isHeldIn(connection, name, digest)
          )
        ),
        Effect.map(Option.isSome),
        Effect.catch(fail(connection, "look for a blob in other namespaces"))
      )
    ),
    abortIngest: Effect.fn("ContainerdClient.abortIngest")(({ namespace, ref }) =>
      unary(within(connection, namespace), Content.method.abort, { ref }).pipe(
        Effect.asVoid,
        Effect.catch(failOf(connection, "abort an ingest", ref))
      )
    )
  }
}

/** The state of the CRI plugin. In 2.x it consists of several, of which the first that failed tells why. */
const criPluginOf = (plugins: ReadonlyArray<Plugin>): CriPlugin => {
  const service = plugins.find(({ id, type }) => type === "io.containerd.grpc.v1" && id === "cri")
  if (service === undefined) return CriPlugin.Missing()
  if (service.initErr === undefined) return CriPlugin.Loaded()
  const part = plugins.find((plugin) => plugin !== service && plugin.initErr !== undefined)
  return CriPlugin.Failed({ reason: part?.initErr?.message ?? service.initErr.message })
}

const criCalls = (connection: Connection): Pick<Client, "criConfig" | "criPlugin" | "criPull" | "criRemove"> => {
  const { channel } = connection
  return {
    criConfig: unary(channel, RuntimeService.method.status, { verbose: true }).pipe(
      Effect.map(({ info }) => Option.fromUndefinedOr(info["config"])),
      Effect.catch(fail(connection, "ask the CRI plugin for its configuration"))
    ),
    criPlugin: unary(channel, Introspection.method.plugins, { filters: ["id==cri", "type==io.containerd.cri.v1"] })
      .pipe(
        Effect.map(({ plugins }) => criPluginOf(plugins)),
        Effect.catch(fail(connection, "ask whether the CRI plugin runs"))
      ),
    criPull: Effect.fn("ContainerdClient.criPull")((image) =>
      unary({ ...channel, deadline: pullDeadline }, ImageService.method.pullImage, { image: { image } }).pipe(
        Effect.asVoid,
        Effect.catch(fail(connection, `pull ${image}`))
      )
    ),
    criRemove: Effect.fn("ContainerdClient.criRemove")((image) =>
      unary({ ...channel, deadline: pullDeadline }, ImageService.method.removeImage, { image: { image } }).pipe(
        Effect.asVoid,
        Effect.catch(fail(connection, `remove ${image}`))
      )
    )
  }
}

const pluginCalls = (connection: Connection): Pick<Client, "contentRoot" | "namespaces"> => {
  const { channel } = connection
  const operation = "ask where containerd keeps content"
  return {
    namespaces: unary(channel, Namespaces.method.list, {}).pipe(
      Effect.map(({ namespaces }) => namespaces.map(({ name }) => name)),
      Effect.catch(fail(connection, "list containerd's namespaces"))
    ),
    contentRoot: unary(channel, Introspection.method.plugins, { filters: ["type==io.containerd.content.v1"] }).pipe(
      Effect.catch(fail(connection, operation)),
      Effect.map(({ plugins }) => plugins.flatMap(({ exports }) => exports["root"] ?? [])[0]),
      Effect.filterOrFail(
        (root) => root !== undefined,
        () => new ContainerdFailed({ operation, code: "NOT_FOUND", detail: "the content plugin is not loaded" })
      )
    )
  }
}

/** The service of `ContainerdClient.layer`. */
export const connect = Effect.fnUntraced(function*(options: ContainerdClientOptions) {
  const { namespace, socket, socketSetting = "the path" } = options
  const channel = yield* GrpcChannel.make({
    socket,
    headers: { [namespaceHeader]: namespace },
    deadline
  })
  const connection: Connection = {
    channel,
    namespace,
    unavailable: (operation, cause) =>
      Effect.flatMap(
        diagnose(socket, socketSetting),
        (hint) => Effect.fail(new ContainerdUnavailable({ operation, socket, hint, cause }))
      )
  }
  const version = versionOf(connection)
  yield* version
  return ContainerdClient.of({
    ...imageCalls(connection),
    ...contentCalls(connection),
    ...criCalls(connection),
    ...pluginCalls(connection),
    events: eventsOf(connection),
    version
  })
})
