/** Image records and their events, from containerd's messages. */
import { fromBinary } from "@bufbuild/protobuf"
import * as Digest from "@spegel-ts/oci/Digest"
import { Option, Result } from "effect"
import { type Image, ImageEvent } from "../../ContainerdClient.ts"
import type { Envelope } from "../gen/events_pb.ts"
import {
  type Image as ImageMessage,
  ImageCreateSchema,
  ImageDeleteSchema,
  ImageUpdateSchema
} from "../gen/images_pb.ts"

/** The CRI plugin's label of image records. */
const managedByCri = "io.cri-containerd.image"

/** The record; none if its digest is missing or of an unknown algorithm. */
export const toImage = (image: ImageMessage | undefined): Option.Option<Image> => {
  const target = image?.target
  if (image === undefined || target === undefined) return Option.none()
  return Option.map(Digest.fromString(target.digest), (digest) => ({
    name: image.name,
    digest,
    mediaType: target.mediaType,
    size: Number(target.size)
  }))
}

/** The event; fails for an event of another namespace or another kind of record. */
export const toEvent =
  (namespace: string) => ({ event, topic, ...envelope }: Envelope): Result.Result<ImageEvent, unknown> => {
    if (envelope.namespace !== namespace || event === undefined) return Result.failVoid
    // The topic determines the type: `anyUnpack` does not understand the type URLs of containerd 1.x.
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
