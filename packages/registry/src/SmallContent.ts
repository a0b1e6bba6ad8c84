/**
 * Small content of this node, kept in memory for a moment: the manifests that many ask for at once are then read once.
 * What a digest names never changes; whether it is still held is asked again after that moment.
 */
import type { BlobSource } from "@spegel-ts/content/ContentStore"
import { Effect } from "effect"
import { ShortMemory } from "./ShortMemory.ts"

/** Larger content is not kept. In bytes. */
const maxSize = 64 * 1024

export interface Small {
  readonly mediaType: string
  readonly bytes: Uint8Array
}

type File = Extract<BlobSource, { readonly _tag: "File" }>

export class SmallContent {
  readonly #memory = new ShortMemory<Small>()

  get(digest: string, now: number): Small | undefined {
    return this.#memory.get(digest, now)
  }

  /** The bytes of a small file, read to its end; undefined for a large one, or one that is not what it was. */
  load(digest: string, file: File, now: number): Effect.Effect<Uint8Array | undefined> {
    if (file.size > maxSize) return Effect.undefined
    return Effect.promise(async () => {
      const bytes = Buffer.allocUnsafeSlow(file.size)
      const { bytesRead } = await file.handle.read(bytes, 0, file.size, 0).catch(() => ({ bytesRead: -1 }))
      if (bytesRead !== file.size) return undefined
      this.#memory.set(digest, { mediaType: file.mediaType, bytes }, now)
      return bytes
    })
  }
}
