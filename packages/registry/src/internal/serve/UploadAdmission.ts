/**
 * Bounds the bodies that this node sends at the same time to its peers, and to all clients but its own containerd. A peer beyond
 * a bound is told so at once and asks another, which costs it a round trip; one more slow stream would cost it, and all others,
 * their speed.
 */
import { Tally } from "@spegel-ts/background/Tally"
import { Effect, type Scope } from "effect"
import type { ServerResponse } from "node:http"
import * as ClientAddress from "../listen/ClientAddress.ts"
import * as RegistryMetrics from "../observe/RegistryMetrics.ts"
import { Refusal, Refused } from "./Refusal.ts"

export interface UploadLimits {
  /** Bodies being sent to all of them; 0 for no limit. */
  readonly maxUploads: number
  /** Bodies being sent to one of them, by its address; 0 for no limit. */
  readonly maxUploadsPerPeer: number
}

export interface UploadAdmission {
  /** Counts `response` as an upload to its client while the scope is open, or refuses it. */
  readonly admit: (response: ServerResponse) => Effect.Effect<void, Refused, Scope.Scope>
}

export const make = ({ maxUploads, maxUploadsPerPeer }: UploadLimits): UploadAdmission => {
  const byPeer = new Tally<string>()
  let all = 0

  const count = (peer: string, change: 1 | -1) =>
    Effect.suspend(() => {
      all += change
      byPeer.add(peer, change)
      return RegistryMetrics.uploading(all)
    })

  /** The bound that one more upload to a peer would exceed. */
  const reached = (peer: string) => {
    if (maxUploads > 0 && all >= maxUploads) return { bound: "all", max: maxUploads } as const
    return maxUploadsPerPeer > 0 && byPeer.of(peer) >= maxUploadsPerPeer
      ? { bound: "peer", max: maxUploadsPerPeer } as const
      : undefined
  }

  return {
    admit: Effect.fnUntraced(function*({ socket }) {
      const peer = socket === null ? "" : ClientAddress.of(socket)
      const limit = reached(peer)
      if (limit === undefined) return yield* Effect.acquireRelease(count(peer, 1), () => count(peer, -1))
      yield* RegistryMetrics.uploadRefused(limit.bound)
      return yield* new Refused({ refusal: Refusal.TooManyUploads(limit) })
    })
  }
}
