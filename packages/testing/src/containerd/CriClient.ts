/** The image calls of the kubelet, over containerd's socket. */
import {
  create,
  type DescMessage,
  type DescMethodUnary,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary
} from "@bufbuild/protobuf"
import { Client, credentials } from "@grpc/grpc-js"
import { Data, Effect } from "effect"
import { ImageService } from "./gen/image_service_pb.ts"

/** containerd answered a call with an error, or not at all. */
export class CallFailed extends Data.TaggedError("CallFailed")<{
  readonly method: string
  readonly reason: string
}> {
  override get message() {
    return `${this.method}: ${this.reason}`
  }
}

const deadlineMillis = 5 * 60_000

/** Each call has a connection of its own, so that none is left when the daemon is restarted. Interruption cancels the call. */
const call = <I extends DescMessage, O extends DescMessage>(
  socket: string,
  method: DescMethodUnary<I, O>,
  request: MessageInitShape<I>
): Effect.Effect<MessageShape<O>, CallFailed> =>
  Effect.callback((resume) => {
    const client = new Client(`unix:${socket}`, credentials.createInsecure(), { "grpc.use_local_subchannel_pool": 1 })
    const running = client.makeUnaryRequest(
      `/${method.parent.typeName}/${method.name}`,
      (message: MessageShape<I>) => Buffer.from(toBinary(method.input, message)),
      (bytes: Buffer) => fromBinary(method.output, bytes),
      create(method.input, request),
      { deadline: Date.now() + deadlineMillis },
      (error, response) => {
        client.close()
        resume(
          response === undefined
            ? Effect.fail(new CallFailed({ method: method.name, reason: error?.message ?? "no answer" }))
            : Effect.succeed(response)
        )
      }
    )
    return Effect.sync(() => running.cancel())
  })

/** A pod's pull secret, as the kubelet hands it on: without the name of the registry that it is for. */
export interface PullSecret {
  readonly username: string
  readonly password: string
}

/** Pulls as the kubelet does; gives the id of the image. */
export const pullImage = (socket: string, image: string, auth?: PullSecret) =>
  Effect.map(
    call(socket, ImageService.method.pullImage, { image: { image }, ...(auth === undefined ? {} : { auth }) }),
    ({ imageRef }) => imageRef
  )

/** The image as the kubelet sees it; undefined if the node does not have it. */
export const imageStatus = (socket: string, image: string) =>
  Effect.map(call(socket, ImageService.method.imageStatus, { image: { image } }), ({ image }) => image)

/** Removes the image with all its names; containerd then collects what it alone used. */
export const removeImage = (socket: string, image: string) =>
  Effect.asVoid(call(socket, ImageService.method.removeImage, { image: { image } }))
