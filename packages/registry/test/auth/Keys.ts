/** Cluster keys for tests, and what is signed with them. */
import type { ClusterKeys } from "@spegel-ts/cluster-key/ClusterKeyFile"
import { generate, type KeyRing } from "@spegel-ts/cluster-key/KeyRing"
import { PeerAuth } from "@spegel-ts/cluster-key/PeerAuth"
import * as AnswerProof from "@spegel-ts/registry/internal/auth/AnswerProof"
import * as RequestProof from "@spegel-ts/registry/internal/auth/RequestProof"
import { ringOf } from "@spegel-ts/testing/ClusterKeys"
import { Effect, Layer, Metric, Stream } from "effect"

/** Lines of a cluster key file. */
export const [newLine, oldLine, foreignLine] = [generate(), generate(), generate()] as const
export const ring = ringOf(newLine)
export const foreignRing = ringOf(foreignLine)

/** Keys that a test can replace. */
export const changing = (mode: "require" | "prefer", first: KeyRing) => {
  let now = first
  const keys: ClusterKeys = { ring: () => now, changes: Stream.empty }
  return {
    auth: Layer.succeed(PeerAuth, { mode, keys }),
    replace: (ring: KeyRing) => {
      now = ring
    }
  }
}

export const auth = (mode: "require" | "prefer", keys: KeyRing = ring): Layer.Layer<never> => changing(mode, keys).auth

export interface Signing extends Partial<RequestProof.SignedRequest> {
  readonly receiver: string
  readonly target: string
  readonly ring?: KeyRing
  /** By how many milliseconds the sender's clock is ahead. */
  readonly ahead?: number
}

/** The header of a peer's request, and what its answer has to prove. */
export const signed = ({ ahead = 0, ring: keys = ring, ...request }: Signing) => {
  const key = keys.current("registry")
  const nonce = RequestProof.newNonce()
  const facts = { method: "GET", range: undefined, said: [], ...request }
  const proof = RequestProof.print(key, facts, Date.now() + ahead, nonce)
  return { headers: { "x-spegel-auth": proof, "x-spegel-mirrored": "true" }, expected: { key, nonce } }
}

/** Whether an answer is proved. */
export const isProved = (
  expected: AnswerProof.AnswerProof,
  { headers, status }: { readonly status: number; readonly headers: Headers }
): boolean => AnswerProof.isRight(expected, { status, headers: new Map(headers) })

/** The value of a counter's series; 0 if there is none. */
export const counted = (name: string, labels: Readonly<Record<string, string>>): Effect.Effect<number> =>
  Effect.map(Metric.snapshot, (metrics) => {
    const metric = metrics.find(({ attributes, id }) =>
      id === name && Object.entries(labels).every(([label, value]) => attributes?.[label] === value)
    )
    return metric?.type === "Counter" ? Number(metric.state.count) : 0
  })

export const failures = (reason: string) => counted("spegel_peer_auth_failures_total", { reason })
