/** protobuf-es messages over a grpc-js channel, as Effects and Streams. */
import {
  create,
  type DescMessage,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary
} from "@bufbuild/protobuf"
import { Client, credentials, logVerbosity, Metadata, type ServiceError, setLogVerbosity, status } from "@grpc/grpc-js"
import { Data, Duration, Effect, type Scope, Stream } from "effect"

/** The call failed: the server, or the channel itself, answered with a gRPC status code. */
export class GrpcError extends Data.TaggedError("GrpcError")<{ readonly code: status; readonly details: string }> {
  override get message() {
    return `${status[this.code] ?? this.code}: ${this.details}`
  }
}

export { status as GrpcStatus }

export interface GrpcChannel {
  readonly client: Client
  readonly metadata: Metadata
  readonly deadline: Duration.Duration
}

interface Method<Kind extends string, I extends DescMessage, O extends DescMessage> {
  readonly methodKind: Kind
  readonly parent: { readonly typeName: string }
  readonly name: string
  readonly input: I
  readonly output: O
}

/** The largest message taken: an image record is about 200 bytes, so this is a list of some 300,000 images. */
const maxReceiveBytes = 64 * 1024 * 1024

/** A channel to a unix socket. It connects with the first call and is closed with the scope. */
export const make = (options: {
  readonly socket: string
  readonly headers: Readonly<Record<string, string>>
  readonly deadline: Duration.Duration
}): Effect.Effect<GrpcChannel, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      // Calls report what goes wrong. The library would write to standard error, and block while nobody reads it.
      setLogVerbosity(logVerbosity.NONE)
      const client = new Client(`unix:${options.socket}`, credentials.createInsecure(), {
        "grpc.max_receive_message_length": maxReceiveBytes,
        "grpc.max_send_message_length": 1024 * 1024,
        "grpc.initial_reconnect_backoff_ms": 100,
        "grpc.max_reconnect_backoff_ms": 2000,
        "grpc.enable_http_proxy": 0,
        "grpc.enable_retries": 0,
        "grpc.service_config_disable_resolution": 1,
        // Channels of one process share connections by default; this one must end with its scope.
        "grpc.use_local_subchannel_pool": 1
      })
      const metadata = new Metadata()
      for (const [key, value] of Object.entries(options.headers)) metadata.set(key, value)
      return { client, metadata, deadline: options.deadline }
    }),
    ({ client }) => Effect.sync(() => client.close())
  )

/** The same channel with another value of a header. */
export const withHeader = (channel: GrpcChannel, key: string, value: string): GrpcChannel => {
  const metadata = channel.metadata.clone()
  metadata.set(key, value)
  return { ...channel, metadata }
}

const fromServiceError = (error: ServiceError) => new GrpcError({ code: error.code, details: error.details })

const path = (method: Method<string, DescMessage, DescMessage>) => `/${method.parent.typeName}/${method.name}`

const serialize = <M extends DescMessage>(schema: M) => (message: MessageShape<M>) =>
  Buffer.from(toBinary(schema, message))

const deserialize = <M extends DescMessage>(schema: M) => (bytes: Buffer) => fromBinary(schema, bytes)

/** One request, one answer, within the channel's deadline. Interruption cancels the call. */
export const unary = <I extends DescMessage, O extends DescMessage>(
  channel: GrpcChannel,
  method: Method<"unary", I, O>,
  request: MessageInitShape<I>
): Effect.Effect<MessageShape<O>, GrpcError> =>
  Effect.callback<MessageShape<O>, GrpcError>((resume) => {
    const call = channel.client.makeUnaryRequest(
      path(method),
      serialize(method.input),
      deserialize(method.output),
      create(method.input, request),
      channel.metadata,
      (error, response) => {
        if (error !== null) resume(Effect.fail(fromServiceError(error)))
        else if (response === undefined) {
          resume(Effect.fail(new GrpcError({ code: status.INTERNAL, details: "the call ended without an answer" })))
        } else resume(Effect.succeed(response))
      }
    )
    return Effect.sync(() => call.cancel())
  }).pipe(
    // gRPC's own deadline is a time of day: it breaks when the clock is set.
    Effect.timeoutOrElse({
      duration: channel.deadline,
      orElse: () =>
        Effect.fail(
          new GrpcError({
            code: status.DEADLINE_EXCEEDED,
            details: `no answer in ${Duration.format(channel.deadline)}`
          })
        )
    })
  )

/**
 * A call that the server answers with many messages. It is sent when the effect runs, before anything that is called
 * later on the same channel, and cancelled with the scope.
 */
export const serverStream = <I extends DescMessage, O extends DescMessage>(
  channel: GrpcChannel,
  method: Method<"server_streaming", I, O>,
  request: MessageInitShape<I>
): Effect.Effect<Stream.Stream<MessageShape<O>, GrpcError>, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const call = channel.client.makeServerStreamRequest(
        path(method),
        serialize(method.input),
        deserialize(method.output),
        create(method.input, request),
        channel.metadata
      )
      // Cancelling also emits an error, when nobody iterates any more. Without a listener it would end the process.
      call.on("error", () => {})
      return call
    }),
    (call) => Effect.sync(() => call.cancel())
  ).pipe(
    Effect.map((call) => Stream.fromAsyncIterable(call, (error) => fromServiceError(error as ServiceError)))
  )
