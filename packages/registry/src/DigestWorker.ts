/**
 * A thread that hashes. It reads shared memory of its parent, and imports nothing, so that it runs from the source as
 * from the bundle.
 */
import { createHash, type Hash } from "node:crypto"
import { parentPort, workerData } from "node:worker_threads"

export interface WorkerData {
  readonly memory: SharedArrayBuffer
  readonly slotSize: number
}

export type ToWorker =
  | { readonly _tag: "Begin"; readonly job: number; readonly algorithm: string }
  | { readonly _tag: "Update"; readonly job: number; readonly slot: number; readonly length: number }
  | { readonly _tag: "Digest"; readonly job: number }
  | { readonly _tag: "Forget"; readonly job: number }

export type FromWorker =
  | { readonly _tag: "Free"; readonly slot: number }
  | { readonly _tag: "Digest"; readonly job: number; readonly hex: string }

const port = parentPort
if (port !== null) {
  const { memory, slotSize } = workerData as WorkerData
  const hashes = new Map<number, Hash>()
  const tell = (message: FromWorker) => port.postMessage(message)
  port.on("message", (message: ToWorker) => {
    switch (message._tag) {
      case "Begin":
        return hashes.set(message.job, createHash(message.algorithm))
      case "Update":
        hashes.get(message.job)?.update(new Uint8Array(memory, message.slot * slotSize, message.length))
        return tell({ _tag: "Free", slot: message.slot })
      case "Digest":
        tell({ _tag: "Digest", job: message.job, hex: hashes.get(message.job)?.digest("hex") ?? "" })
        return hashes.delete(message.job)
      case "Forget":
        return hashes.delete(message.job)
    }
  })
}
