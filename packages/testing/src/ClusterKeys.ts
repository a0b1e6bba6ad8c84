/** Cluster keys for tests. */
import * as ClientToken from "@spegel-ts/cluster-key/ClientToken"
import { generate, KeyRing } from "@spegel-ts/cluster-key/KeyRing"
import { Effect, Result } from "effect"
import { writeFile } from "node:fs/promises"

/** A ring of these lines of a cluster key file, the first of which signs. */
export const ringOf = (...lines: ReadonlyArray<string>): KeyRing => Result.getOrThrow(KeyRing.parse(lines.join("\n")))

/** A ring of one key that nobody else has. */
export const newRing = (): KeyRing => ringOf(generate())

/** Makes a file with a new key at `path`, for processes. */
export const writeTo = Effect.fnUntraced(function*(path: string) {
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

export type ClusterKeyFile = Effect.Success<ReturnType<typeof writeTo>>
