/**
 * A thread that hashes. It imports nothing of the project, so that it runs from the source as from the bundle.
 */
import { createHash, type Hash } from "node:crypto"
import { parentPort } from "node:worker_threads"

export type ToWorker =
  | { readonly _tag: "Begin"; readonly job: number; readonly algorithm: string }
  /** The next bytes of a job. */
  | { readonly _tag: "Update"; readonly job: number; readonly chunk: Uint8Array }
  | { readonly _tag: "Digest"; readonly job: number }
  | { readonly _tag: "Forget"; readonly job: number }

export type FromWorker =
  /** The oldest update is hashed. */
  | { readonly _tag: "Hashed" }
  | { readonly _tag: "Digest"; readonly job: number; readonly hex: string }

const port = parentPort
if (port !== null) {
  const hashes = new Map<number, Hash>()
  const answer = (message: ToWorker): ReadonlyArray<FromWorker> => {
    const { job } = message
    const hash = hashes.get(job)
    switch (message._tag) {
      case "Begin":
        hashes.set(job, createHash(message.algorithm))
        return []
      case "Update":
        hash?.update(message.chunk)
        return [{ _tag: "Hashed" }]
      case "Digest":
        hashes.delete(job)
        return [{ _tag: "Digest", job, hex: hash?.digest("hex") ?? "" }]
      case "Forget":
        hashes.delete(job)
        return []
    }
  }
  port.on("message", (messages: ReadonlyArray<ToWorker>) => {
    const answers = messages.flatMap(answer)
    if (answers.length > 0) port.postMessage(answers)
  })
}
