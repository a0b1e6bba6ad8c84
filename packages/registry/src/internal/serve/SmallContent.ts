/**
 * Small content of this node, kept in memory for a moment: the manifests that many ask for at once are then read once.
 * What a digest names never changes; whether it is still held, and as what, is asked again after that moment.
 */
import type { BlobSource } from "@spegel-ts/content/ContentStore"
import type * as Digest from "@spegel-ts/oci/Digest"
import { Effect, Option } from "effect"
import type { ContentRequest } from "../../ContentId.ts"
import { ShortMemory } from "./ShortMemory.ts"

/** Larger content is not kept. In bytes. */
const maxSize = 64 * 1024

export interface Small {
  readonly mediaType: string
  readonly bytes: Uint8Array
}

type File = Extract<BlobSource, { readonly _tag: "File" }>

/** The same bytes may be asked for as a blob, or as manifests of repositories that know them under other types. */
const keyOf = (request: ContentRequest, digest: Digest.Digest) =>
  request._tag === "Blob"
    ? digest
    : `${Option.getOrElse(request.namespace, () => "")}/${request.repository}@${digest}`

export class SmallContent {
  readonly #memory = new ShortMemory<Small>()

  get(request: ContentRequest, digest: Digest.Digest, now: number): Small | undefined {
    return this.#memory.get(keyOf(request, digest), now)
  }

  /** The bytes of a small file, read to its end; undefined for a large one, or one that is not what it was. */
  load(
    request: ContentRequest,
    content: { readonly digest: Digest.Digest; readonly mediaType: string },
    file: File,
    now: number
  ): Effect.Effect<Uint8Array | undefined> {
    if (file.size > maxSize) return Effect.undefined
    return Effect.promise(async () => {
      const bytes = Buffer.allocUnsafeSlow(file.size)
      const { bytesRead } = await file.handle.read(bytes, 0, file.size, 0).catch(() => ({ bytesRead: -1 }))
      if (bytesRead !== file.size) return undefined
      this.#memory.set(keyOf(request, content.digest), { mediaType: content.mediaType, bytes }, now)
      return bytes
    })
  }
}
