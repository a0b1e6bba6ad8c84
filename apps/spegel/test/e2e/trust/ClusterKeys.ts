/** Files with cluster keys, and the tokens that they make. */
import * as ClientToken from "@spegel-ts/cluster-key/ClientToken"
import { generate } from "@spegel-ts/cluster-key/KeyRing"
import { ringOf } from "@spegel-ts/testing/ClusterKeys"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Effect } from "effect"
import { writeFile } from "node:fs/promises"
import { join } from "node:path"

/** A file with a new key. */
export const make = Effect.gen(function*() {
  const path = join(yield* temporary, "key")
  const line = generate()
  yield* Effect.promise(() => writeFile(path, `${line}\n`, { mode: 0o600 }))
  const ring = ringOf(line)
  return {
    /** The flag that names the file. */
    flag: `--cluster-key-file=${path}`,
    /** The token for the containerd of a node. */
    tokenOf: (node: string): string => ClientToken.make(ring, node) ?? ""
  }
})

export type ClusterKey = Effect.Success<typeof make>
