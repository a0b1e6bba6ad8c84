/** Cluster keys for tests. */
import { generate, KeyRing } from "@spegel-ts/cluster-key/KeyRing"
import { Result } from "effect"

/** A ring of these lines of a cluster key file, the first of which signs. */
export const ringOf = (...lines: ReadonlyArray<string>): KeyRing => Result.getOrThrow(KeyRing.parse(lines.join("\n")))

/** A ring of one key that nobody else has. */
export const newRing = (): KeyRing => ringOf(generate())
