/**
 * How strictly a node asks others to prove that they know the cluster key. Router and registry read it from their context; a
 * program that provides nothing gets `off`, a network of which everybody is a member.
 */
import { Context, type Duration, Effect, Layer } from "effect"
import * as ClusterKeyFile from "./ClusterKeyFile.ts"
import type { KeyRing } from "./KeyRing.ts"

/** How a node treats peers and clients that prove nothing. */
export type PeerAuthMode =
  /** They are not members, their word does not count, and nothing is served to them. */
  | "require"
  /** They are members of less weight: for migrations, and for networks with nodes that have no key, such as Go Spegel's. */
  | "prefer"
  /** Nobody proves anything. */
  | "off"

/** A mode, and the keys that it needs. */
export type PeerAuthState =
  | { readonly mode: "off" }
  | { readonly mode: "require" | "prefer"; readonly keys: ClusterKeyFile.ClusterKeys }

/** Whether others prove that they know the cluster key, and the keys. `off` unless a layer says otherwise. */
export const PeerAuth: Context.Reference<PeerAuthState> = Context.Reference("@spegel-ts/cluster-key/PeerAuth", {
  defaultValue: (): PeerAuthState => ({ mode: "off" })
})

/** The keys of a file, which is read again each minute (`interval`). */
export const layerFile = (options: {
  readonly mode: "require" | "prefer"
  readonly path: string
  readonly interval?: Duration.Duration
}): Layer.Layer<never, ClusterKeyFile.ClusterKeyUnreadable> =>
  Layer.effect(PeerAuth, Effect.map(ClusterKeyFile.follow(options), (keys) => ({ mode: options.mode, keys })))

/** Keys that never change, for tests and for programs that keep their keys elsewhere. */
export const layer = (options: { readonly mode: "require" | "prefer"; readonly ring: KeyRing }): Layer.Layer<never> =>
  Layer.succeed(PeerAuth, { mode: options.mode, keys: ClusterKeyFile.constant(options.ring) })
