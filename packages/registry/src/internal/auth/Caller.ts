/** Whoever asks this node for something. */
import type { ContentRequest } from "../../ContentId.ts"
import type { Client, KeyAge } from "./ClientCredentials.ts"

export type Caller =
  | Client
  /** A peer that has the cluster key. */
  | { readonly _tag: "Peer"; readonly key: KeyAge }
  /** A peer that proves nothing, where that is allowed (`prefer`). */
  | { readonly _tag: "UnprovedPeer" }
  /** Any other client that proves nothing, where that is allowed (`prefer`). */
  | { readonly _tag: "Unproved" }
  /** Anybody, where nobody proves anything (`off`), and whoever asks how the node is. */
  | { readonly _tag: "Anybody" }

/** Whether this node's own containerd asks. Where nobody proves anything, every client that is not a peer is taken for it. */
export const isOwn = (caller: Caller, { mirrored }: ContentRequest): boolean =>
  caller._tag === "Own" || (caller._tag === "Anybody" && !mirrored)
