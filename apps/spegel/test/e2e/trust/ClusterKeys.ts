/** Files with cluster keys, and the tokens that they make. */
import * as ClusterKeys from "@spegel-ts/testing/ClusterKeys"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Effect } from "effect"
import { join } from "node:path"

/** A file with a new key. */
export const make = Effect.flatMap(temporary, (directory) => ClusterKeys.writeTo(join(directory, "key")))

export type ClusterKey = ClusterKeys.ClusterKeyFile
