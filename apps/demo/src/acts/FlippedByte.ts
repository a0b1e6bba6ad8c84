/** A peer has a layer with one wrong byte. A small layer is verified before it is passed on, a large one by the client at its end. */
import * as Digest from "@spegel-ts/oci/Digest"
import * as RandomImage from "@spegel-ts/testing/content/RandomImage"
import { Effect } from "effect"
import { chmod, open } from "node:fs/promises"
import { join } from "node:path"
import type { DemoNode } from "../DemoCluster.ts"
import * as NodeFacts from "../NodeFacts.ts"
import * as Stage from "../Stage.ts"

/** Sizes in bytes. */
export interface FlippedByte {
  readonly node: string
  readonly holder: string
  readonly layerBytes: number
  /** Whether the client got the wrong bytes, and refused them. */
  readonly isRefusedByClient: boolean
  /** Whether the mirror found the bytes to be wrong, and passed none of them on. */
  readonly isRefusedByMirror: boolean
  /** Pulls until the image was there. */
  readonly tries: number
  readonly upstreamBytes: number
  /** Whether the holder has found that its copy is wrong, and gives it to nobody any more. */
  readonly isWithdrawn: boolean
}

/** The size up to which a mirror reads a layer whole before it sends a byte is 4 MiB. */
export const sizes = [1024 * 1024, 8 * 1024 * 1024]

const flip = (path: string, position: number) =>
  Effect.promise(async () => {
    // Blobs are read-only.
    await chmod(path, 0o644)
    const file = await open(path, "r+")
    try {
      const byte = Buffer.alloc(1)
      await file.read(byte, 0, 1, position)
      byte.writeUInt8(byte.readUInt8() ^ 1)
      await file.write(byte, 0, 1, position)
    } finally {
      await file.close()
    }
  })

export interface FlipOptions {
  readonly node: DemoNode
  readonly holder: DemoNode
  readonly seed: number
  readonly layerBytes: number
}

export const run = Effect.fnUntraced(function*(stage: Stage.Stage, { holder, layerBytes, node, seed }: FlipOptions) {
  const { reference } = yield* stage.upstream.push(seed, [layerBytes])
  const image = yield* RandomImage.write({ writer: holder.writer, reference, layerSizes: [layerBytes], seed })
  const layer = image.objects.find(({ kind }) => kind === "layer 1")?.descriptor
  if (layer === undefined) return yield* Effect.die(new Error("an image without a layer"))
  yield* flip(join(holder.root, "blobs", "sha256", Digest.hex(layer.digest)), layerBytes >> 1)
  yield* Stage.untilFound(node, image)

  const damagedBefore = yield* NodeFacts.metric(holder.metrics, "spegel_content_damaged_total")
  const pull = Stage.pull(stage, { node, image, through: "mirror", onProgress: () => Effect.void })
  let tries = 1
  const { upstreamBytes } = yield* Stage.counted(
    stage,
    // As a kubelet does after a failed pull.
    pull.pipe(Effect.catchTag("DigestMismatch", () => {
      tries++
      return pull
    }))
  )
  const requests = yield* NodeFacts.pullsOf(node.metrics, layer.digest)
  const isWithdrawn = yield* Stage.settled(
    Effect.map(
      NodeFacts.metric(holder.metrics, "spegel_content_damaged_total"),
      (damaged) => damaged > damagedBefore
    )
  )
  return {
    node: node.name,
    holder: holder.name,
    layerBytes: layer.size,
    isRefusedByClient: tries > 1,
    isRefusedByMirror: requests[0]?.attempts.some(({ outcome }) => outcome.includes("wrong bytes")) === true,
    tries,
    upstreamBytes,
    isWithdrawn
  } satisfies FlippedByte
})
