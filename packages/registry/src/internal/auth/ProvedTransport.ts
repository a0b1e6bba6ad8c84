/**
 * Sends requests to peers with a proof of the cluster key, and believes only answers that have one too. Where peers need not prove
 * anything, requests and answers are plain.
 */
import type { ClusterKeys } from "@spegel-ts/cluster-key/ClusterKeyFile"
import type { KeyRing, PurposeKey } from "@spegel-ts/cluster-key/KeyRing"
import { PeerAuth } from "@spegel-ts/cluster-key/PeerAuth"
import * as PeerAuthMetrics from "@spegel-ts/cluster-key/PeerAuthMetrics"
import type { HttpRequest } from "@spegel-ts/oci/DistributionRequest"
import type { Peer } from "@spegel-ts/router/Peer"
import { PeerRefused } from "@spegel-ts/transfer/PeerError"
import {
  type PeerRequest,
  type PeerResponse,
  PeerTransport,
  type TransportError
} from "@spegel-ts/transfer/PeerTransport"
import { Clock, Effect, Exit, Scope } from "effect"
import { nameOf } from "../mirror/PeerAnswer.ts"
import * as AnswerProof from "./AnswerProof.ts"
import { ProofMemory } from "./ProofMemory.ts"
import * as RequestProof from "./RequestProof.ts"

/** A request; the peer's addresses are added to it. */
export interface Asked extends HttpRequest, Pick<PeerRequest, "patienceMillis"> {}

export interface ProvedTransport {
  /** Whether this peer has to prove its answers: one that it gave is then a proved peer's. */
  readonly proves: (peer: Peer) => boolean
  /**
   * As `PeerTransport.request`. A peer that has to prove itself, and gives an answer without a right proof, fails with
   * `PeerRefused` without a status: nothing of such an answer counts. The caller limits the time.
   */
  readonly request: (peer: Peer, asked: Asked) => Effect.Effect<PeerResponse, TransportError, Scope.Scope>
}

interface Parts {
  readonly transport: PeerTransport["Service"]
  readonly keys: ClusterKeys
  readonly memory: ProofMemory
}

export const make = Effect.gen(function*() {
  const transport = yield* PeerTransport
  const auth = yield* PeerAuth
  const plain: ProvedTransport["request"] = ({ addresses, servicePort }, asked) =>
    transport.request({ ...asked, addresses, port: servicePort })
  if (auth.mode === "off") return { proves: () => false, request: plain } satisfies ProvedTransport
  const parts: Parts = { transport, keys: auth.keys, memory: new ProofMemory() }
  const proves = (peer: Peer) => auth.mode === "require" || peer.proved === true
  return {
    proves,
    request: (peer, asked) => proves(peer) ? proved(parts, peer, asked) : plain(peer, asked)
  } satisfies ProvedTransport
})

/** What a response to a signed request is. */
type Verdict =
  | { readonly _tag: "Proved" }
  /** The peer refused the time of the request, and proved its own. */
  | { readonly _tag: "OtherTime"; readonly time: number }
  /** Somebody says that the peer accepts these keys only. Nobody has proved it. */
  | { readonly _tag: "OtherKeys"; readonly ids: ReadonlyArray<string> }
  | { readonly _tag: "Unproved"; readonly reason: PeerAuthMetrics.Reason }

/** Asks once, once more with a key that both sides have, and once more with the peer's own time. */
const proved = Effect.fnUntraced(function*(
  parts: Parts,
  peer: Peer,
  asked: Asked
): Effect.fn.Return<PeerResponse, TransportError, Scope.Scope> {
  const ring = parts.keys.ring()
  const all = yield* Effect.scope
  let key = yield* parts.memory.keyFor(peer.id, ring)
  let mayChangeKey = true
  let mayChangeTime = true
  while (true) {
    const scope = yield* Scope.fork(all)
    const { response, sent, verdict } = yield* Scope.provide(once(parts, peer, asked, key), scope)
    if (verdict._tag === "Proved") {
      yield* parts.memory.keyAccepted(peer.id, key, ring)
      return response
    }
    yield* Scope.close(scope, Exit.void)
    const reason = failureOf(verdict)
    if (verdict._tag === "OtherTime" && mayChangeTime) {
      mayChangeTime = false
      parts.memory.clockIsAhead(peer.id, verdict.time - sent)
    } else if (verdict._tag === "OtherKeys" && mayChangeKey) {
      mayChangeKey = false
      const common = otherKey(ring, key, verdict.ids)
      if (common === undefined) return yield* refuse(peer, reason)
      key = common
    } else return yield* refuse(peer, reason)
  }
})

/** A key to try instead of `key`, if the peer accepts these only. */
const otherKey = (ring: KeyRing, key: PurposeKey, ids: ReadonlyArray<string>): PurposeKey | undefined => {
  const common = ring.common("registry", ids)
  return common?.id === key.id ? undefined : common
}

const once = Effect.fnUntraced(function*({ memory, transport }: Parts, peer: Peer, asked: Asked, key: PurposeKey) {
  const { headers, method, url } = asked
  const sent = yield* Clock.currentTimeMillis
  const nonce = RequestProof.newNonce()
  const range = headers["range"]
  const request: RequestProof.SignedRequest = {
    receiver: peer.id,
    method,
    target: url,
    range: typeof range === "string" ? range : undefined,
    said: RequestProof.saidIn(headers)
  }
  const proof = RequestProof.print(key, request, Math.max(0, sent + memory.ahead(peer.id)), nonce)
  const response = yield* transport.request({
    ...asked,
    headers: { ...headers, [RequestProof.proofHeader]: proof },
    addresses: peer.addresses,
    port: peer.servicePort
  })
  return { response, sent, verdict: judge({ key, nonce }, response) }
})

const unixMillis = /^[0-9]{1,15}$/
const keyIds = /^[0-9a-f]{16}(?: [0-9a-f]{16}){0,15}$/

const judge = (expected: AnswerProof.AnswerProof, response: PeerResponse): Verdict => {
  const { headers } = response
  if (!headers.has(RequestProof.proofHeader)) {
    const keys = headers.get(RequestProof.keysHeader) ?? ""
    return keyIds.test(keys)
      ? { _tag: "OtherKeys", ids: keys.split(" ") }
      : { _tag: "Unproved", reason: "unsigned_answer" }
  }
  if (!AnswerProof.isRight(expected, response)) return { _tag: "Unproved", reason: "bad_signature" }
  const time = headers.get(AnswerProof.timeHeader)
  if (time === undefined) return { _tag: "Proved" }
  return unixMillis.test(time) ? { _tag: "OtherTime", time: Number(time) } : { _tag: "Unproved", reason: "malformed" }
}

const failureOf = (verdict: Exclude<Verdict, { readonly _tag: "Proved" }>): PeerAuthMetrics.Reason => {
  switch (verdict._tag) {
    case "OtherTime":
      return "clock"
    case "OtherKeys":
      return "other_key"
    case "Unproved":
      return verdict.reason
  }
}

const inWords: Partial<Record<PeerAuthMetrics.Reason, string>> = {
  clock: "refused the time of a request that was signed by its own clock",
  other_key: "and this node have no cluster key in common",
  unsigned_answer: "answered without a proof of the cluster key",
  bad_signature: "answered with a wrong proof of the cluster key",
  malformed: "answered with a time that is none"
}

const refuse = (peer: Peer, reason: PeerAuthMetrics.Reason): Effect.Effect<never, PeerRefused> =>
  Effect.andThen(
    PeerAuthMetrics.failed(reason),
    Effect.fail(new PeerRefused({ peer: nameOf(peer), reason: inWords[reason] ?? reason }))
  )
