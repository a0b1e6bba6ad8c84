/**
 * How many bodies this node sends to its peers at once. Beyond the bounds a peer is told so at once, and asks another:
 * that costs it a round trip, where one more slow stream would cost it and all others their speed.
 */
import * as DistributionError from "@spegel-ts/oci/DistributionError"
import { Effect, Metric, type Scope } from "effect"
import type { ServerResponse } from "node:http"
import * as ClientAddress from "./ClientAddress.ts"

export interface UploadLimits {
  /** Bodies being sent to all peers; 0 for any number. */
  readonly maxUploads: number
  /** Bodies being sent to one peer, by its address; 0 for any number. */
  readonly maxUploadsPerPeer: number
}

const inflight = Metric.gauge("spegel_uploads_inflight", { description: "Bodies being sent to peers" })
const refused = Metric.counter("spegel_uploads_refused_total", {
  description: "Requests of peers answered 503, by the bound that was reached",
  incremental: true
})
const refusedBy = {
  all: Metric.withAttributes(refused, { bound: "all" }),
  peer: Metric.withAttributes(refused, { bound: "peer" })
}

/** Seconds after which a peer may ask again. */
export const retryAfter = 1

export interface UploadAdmission {
  /** Counts `response` as an upload to its peer while the scope is open, or fails with what the peer is told. */
  readonly admit: (response: ServerResponse) => Effect.Effect<void, DistributionError.DistributionError, Scope.Scope>
}

/** Makes the series that tell of uploads, before there are any. */
export const initialise: Effect.Effect<void> = Effect.all([
  Metric.value(inflight),
  Metric.value(refusedBy.all),
  Metric.value(refusedBy.peer)
], { discard: true })

export const make = ({ maxUploads, maxUploadsPerPeer }: UploadLimits): UploadAdmission => {
  const byPeer = new Map<string, number>()
  let all = 0

  const count = (peer: string, change: 1 | -1) =>
    Effect.suspend(() => {
      all += change
      const uploads = (byPeer.get(peer) ?? 0) + change
      if (uploads > 0) byPeer.set(peer, uploads)
      else byPeer.delete(peer)
      return Metric.update(inflight, all)
    })

  return {
    admit: Effect.fnUntraced(function*(response) {
      const peer = response.socket === null ? "" : ClientAddress.of(response.socket)
      const full = maxUploads > 0 && all >= maxUploads
        ? "all"
        : maxUploadsPerPeer > 0 && (byPeer.get(peer) ?? 0) >= maxUploadsPerPeer
        ? "peer"
        : undefined
      if (full === undefined) return yield* Effect.acquireRelease(count(peer, 1), () => count(peer, -1))
      yield* Metric.update(refusedBy[full], 1)
      response.setHeader("retry-after", retryAfter)
      return yield* DistributionError.unavailable(
        `spegel-ts: this node sends to as many peers as it may (${
          full === "all" ? `--max-uploads=${maxUploads}` : `--max-uploads-per-peer=${maxUploadsPerPeer}`
        }): ask another`
      )
    })
  }
}
