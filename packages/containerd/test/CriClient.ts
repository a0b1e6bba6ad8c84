/** The image calls of the kubelet, over containerd's socket. */
import { Duration, Effect } from "effect"
import { type GrpcError, make as makeChannel, unary } from "../src/internal/GrpcChannel.ts"
import { ImageService } from "./gen/image_service_pb.ts"

const use = <A>(
  socket: string,
  call: (channel: Effect.Success<ReturnType<typeof makeChannel>>) => Effect.Effect<A, GrpcError>
): Effect.Effect<A, GrpcError> =>
  // A connection of its own for each call: none is left when the daemon is restarted.
  Effect.scoped(Effect.flatMap(makeChannel({ socket, headers: {}, deadline: Duration.minutes(5) }), call))

/** Pulls as the kubelet does; gives the image's id. Interruption cancels the pull. */
export const pullImage = (socket: string, image: string) =>
  use(socket, (channel) => unary(channel, ImageService.method.pullImage, { image: { image } })).pipe(
    Effect.map(({ imageRef }) => imageRef)
  )

/** The image as the kubelet sees it, undefined where the node does not have it. */
export const imageStatus = (socket: string, image: string) =>
  use(socket, (channel) => unary(channel, ImageService.method.imageStatus, { image: { image } })).pipe(
    Effect.map(({ image }) => image)
  )

/** Removes the image with all its names; containerd then collects what it alone used. */
export const removeImage = (socket: string, image: string) =>
  use(socket, (channel) => unary(channel, ImageService.method.removeImage, { image: { image } })).pipe(Effect.asVoid)
