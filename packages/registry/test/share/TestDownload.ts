/** A download of a node's containerd: a real file, which a test lets grow, end, or be given up. */
import { ContentNotFound, type Ingest, IngestState } from "@spegel-ts/content/ContentStore"
import type { Digest } from "@spegel-ts/oci/Digest"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Effect } from "effect"
import { appendFileSync, writeFileSync } from "node:fs"
import { open } from "node:fs/promises"
import { join } from "node:path"

/** Requests that come meanwhile see what the first ones have done. */
const openingTakes = "20 millis"

export const make = Effect.fnUntraced(function*(digest: Digest, size: number) {
  const path = join(yield* temporary, "data")
  let written = 0
  let state: "in progress" | "committed" | "given up" = "in progress"
  const ingests: Array<Ingest> = []
  const list = () => {
    ingests.length = 0
    if (state === "in progress") {
      ingests.push({ namespace: "k8s.io", ref: `layer-${digest}`, digest, path, size, written })
    }
  }
  const look = (): IngestState => {
    switch (state) {
      case "in progress":
        return IngestState.InProgress({ written, modified: 0 })
      case "committed":
        return IngestState.Committed()
      case "given up":
        return IngestState.Deleted({ written })
    }
  }
  return {
    /** Begins, without a byte. */
    begin: () => {
      writeFileSync(path, "")
      list()
    },
    grow: (bytes: Uint8Array) => {
      appendFileSync(path, bytes)
      written += bytes.length
      list()
    },
    end: (how: "committed" | "given up") => {
      state = how
      list()
    },
    /** For `startNode`. */
    options: {
      ingests,
      openIngest: () =>
        Effect.gen(function*() {
          yield* Effect.sleep(openingTakes)
          if (state === "given up") return yield* new ContentNotFound({ content: digest })
          const handle = yield* Effect.acquireRelease(
            Effect.promise(() => open(path)),
            (handle) => Effect.promise(() => handle.close())
          )
          return { handle, state: Effect.sync(look), chunks: (start: number) => handle.createReadStream({ start }) }
        })
    }
  }
})
