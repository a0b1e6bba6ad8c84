/** A store of a client that keeps manifests only: everything else is hashed, compared with its digest and forgotten. */
import { StoreUnavailable } from "@spegel-ts/content/ContentStore"
import { DigestMismatch, type OciLayoutWriter } from "@spegel-ts/content/OciLayoutWriter"
import type * as Digest from "@spegel-ts/oci/Digest"
import { Effect } from "effect"
import { createHash } from "node:crypto"

/** Manifests of the demo are far smaller, and its layers are larger. */
const maxKept = 64 * 1024

export const make = (): Pick<OciLayoutWriter, "ingest" | "read" | "tag"> => {
  const kept = new Map<Digest.Digest, Uint8Array>()
  return {
    ingest: (digest, size) =>
      Effect.sync(() => {
        const hash = createHash("sha256")
        const parts: Array<Uint8Array> = []
        let written = 0
        return {
          written: Effect.sync(() => written),
          write: (bytes) =>
            Effect.sync(() => {
              hash.update(bytes)
              written += bytes.length
              if (size <= maxKept) parts.push(bytes)
            }),
          commit: Effect.suspend(() => {
            const actual = `sha256:${hash.digest("hex")}`
            if (actual !== digest || written !== size) {
              return Effect.fail(new DigestMismatch({ expected: digest, actual, size, written }))
            }
            kept.set(digest, Buffer.concat(parts))
            return Effect.void
          })
        }
      }),
    read: (digest) =>
      Effect.suspend(() => {
        const bytes = kept.get(digest)
        return bytes === undefined
          ? Effect.fail(new StoreUnavailable({ operation: "read", hint: `${digest} was not kept` }))
          : Effect.succeed(bytes)
      }),
    tag: () => Effect.void
  }
}
