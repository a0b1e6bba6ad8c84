/**
 * A thread that hashes. All that it imports of the project is `DigestRing`, which imports nothing: so it runs from the
 * source as from the bundle.
 */
import { createHash, type Hash } from "node:crypto"
import { parentPort, receiveMessageOnPort, workerData } from "node:worker_threads"
import { byMessage, DigestRing } from "./DigestRing.ts"

export type ToWorker =
  | { readonly _tag: "Begin"; readonly job: number; readonly algorithm: string }
  /** Memory that commands tell of by the number of such messages before. */
  | { readonly _tag: "Memory"; readonly memory: SharedArrayBuffer }
  /** The next bytes of a job, which are in no shared memory. */
  | { readonly _tag: "Chunk"; readonly job: number; readonly chunk: Uint8Array }
  | { readonly _tag: "Digest"; readonly job: number }
  | { readonly _tag: "Forget"; readonly job: number }

export type FromWorker =
  /** Commands were taken, and somebody waits to be told. */
  | { readonly _tag: "Taken" }
  | { readonly _tag: "Digest"; readonly job: number; readonly hex: string }

/**
 * What another core has just written comes slowly, and hashing waits for each line of it. To fetch it in such pieces
 * first costs less, and whoever lent the memory has it back sooner.
 */
const pieceSize = 64 * 1024

const port = parentPort
if (port !== null) {
  const ring = new DigestRing(workerData as SharedArrayBuffer)
  const hashes = new Map<number, Hash>()
  const memories: Array<Buffer> = []
  const piece = Buffer.allocUnsafeSlow(pieceSize)
  const answer = (answer: FromWorker) => port.postMessage(answer)
  const take = () => {
    if (ring.take()) answer({ _tag: "Taken" })
  }
  const hear = (message: ToWorker) => {
    switch (message._tag) {
      case "Begin":
        hashes.set(message.job, createHash(message.algorithm))
        break
      case "Memory":
        memories.push(Buffer.from(message.memory))
        break
      case "Chunk":
        hashes.get(message.job)?.update(message.chunk)
        break
      case "Digest":
        answer({ _tag: "Digest", job: message.job, hex: hashes.get(message.job)?.digest("hex") ?? "" })
        hashes.delete(message.job)
        break
      case "Forget":
        hashes.delete(message.job)
        // Its memory was given back with the commands before, and nobody may ask again.
        ring.watch()
    }
    take()
  }
  const update = (hash: Hash | undefined, chunk: Buffer) => {
    let start = 0
    for (; chunk.length - start > pieceSize; start += pieceSize) {
      chunk.copy(piece, 0, start)
      hash?.update(piece)
    }
    const size = chunk.copy(piece, 0, start)
    take()
    hash?.update(piece.subarray(0, size))
  }
  for (;;) {
    const { job, length, memory, offset } = ring.next()
    if (memory === byMessage) hear(receiveMessageOnPort(port)?.message as ToWorker)
    else update(hashes.get(job), memories[memory]?.subarray(offset, offset + length) ?? Buffer.alloc(0))
  }
}
