/**
 * A thread that hashes. It reads shared memory of its parent, and imports nothing, so that it runs from the source as
 * from the bundle.
 */
import { createHash, type Hash } from "node:crypto"
import { parentPort, workerData } from "node:worker_threads"

export interface WorkerData {
  readonly memory: SharedArrayBuffer
}

export type ToWorker =
  | { readonly _tag: "Begin"; readonly job: number; readonly algorithm: string }
  /** The next bytes of a job. */
  | { readonly _tag: "Update"; readonly job: number; readonly start: number; readonly length: number }
  | { readonly _tag: "Digest"; readonly job: number }
  | { readonly _tag: "Forget"; readonly job: number }

export type FromWorker =
  /** The oldest update is hashed, and its memory free. */
  | { readonly _tag: "Hashed" }
  | { readonly _tag: "Digest"; readonly job: number; readonly hex: string }

const port = parentPort
if (port !== null) {
  const { memory } = workerData as WorkerData
  const hashes = new Map<number, Hash>()
  const tell = (message: FromWorker) => port.postMessage(message)
  port.on("message", (message: ToWorker) => {
    const { job } = message
    switch (message._tag) {
      case "Begin":
        return hashes.set(job, createHash(message.algorithm))
      case "Update":
        hashes.get(job)?.update(new Uint8Array(memory, message.start, message.length))
        return tell({ _tag: "Hashed" })
      case "Digest":
        tell({ _tag: "Digest", job, hex: hashes.get(job)?.digest("hex") ?? "" })
        return hashes.delete(job)
      case "Forget":
        return hashes.delete(job)
    }
  })
}
