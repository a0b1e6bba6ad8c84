/**
 * Decides who may ask this node for content: peers that prove that they know the cluster key, and clients with a token or a
 * password. Everybody else gets a 404, upon which containerd asks upstream. A 401 with a challenge is given for `/v2/` only, which
 * containerd never asks for: upon a challenge it would send the pod's pull secret, and no longer its token.
 */
import type { Reason } from "@spegel-ts/cluster-key/PeerAuthMetrics"
import { Option } from "effect"
import type { IncomingMessage } from "node:http"
import { Refusal } from "../serve/Refusal.ts"
import { isFromPeer, type RegistryRequest } from "../serve/RegistryRequest.ts"
import type { AnswerProof } from "./AnswerProof.ts"
import type { Caller } from "./Caller.ts"
import { ageOf, ClientCredentials, type ClientOptions } from "./ClientCredentials.ts"
import * as PeerCheck from "./PeerCheck.ts"
import { proofHeader } from "./RequestProof.ts"

export type Admitted = {
  readonly _tag: "Admitted"
  readonly caller: Caller
  /** How the answer is proved, if the caller asks for that. */
  readonly proof?: AnswerProof
}

export type Admission =
  | Admitted
  /** A peer's proof is missing or wrong. */
  | { readonly _tag: "PeerRefused"; readonly refusal: Refusal; readonly reason: Reason; readonly proof?: AnswerProof }
  /** A client has neither a token nor a password, or a wrong one. */
  | {
    readonly _tag: "ClientRefused"
    readonly refusal: Refusal
    readonly credentials: "none" | "wrong"
    readonly proof?: never
  }

export interface AccessOptions extends ClientOptions, Pick<PeerCheck.PeerCheckOptions, "now" | "self"> {}

const anybody: Admitted = { _tag: "Admitted", caller: { _tag: "Anybody" } }
const unproved: Admitted = { _tag: "Admitted", caller: { _tag: "Unproved" } }
const unprovedPeer: Admitted = { _tag: "Admitted", caller: { _tag: "UnprovedPeer" } }

export class AccessControl {
  readonly #options: AccessOptions
  readonly #clients: ClientCredentials
  /** Whether clients are served that have no password. */
  readonly #isOpen: boolean

  constructor(options: AccessOptions) {
    this.#options = options
    this.#clients = new ClientCredentials(options)
    this.#isOpen = options.auth.mode !== "require" && Option.isNone(options.basicAuth)
  }

  /** Whether an `Authorization` header is one of a client that may pull. */
  accepts(authorization: string | undefined): boolean {
    return this.#clients.of(authorization) !== undefined
  }

  /** The caller of a request that was not parsed; undefined for a peer, and for everybody who is to be refused. */
  client(incoming: IncomingMessage): Caller | undefined {
    const { headers } = incoming
    return isFromPeer(incoming) || headers[proofHeader] !== undefined
      ? undefined
      : this.#admittedClient(headers.authorization)?.caller
  }

  admit(asked: RegistryRequest, incoming: IncomingMessage): Admission {
    if (asked._tag === "Livez" || asked._tag === "Readyz") return anybody
    const { auth } = this.#options
    const { [proofHeader]: header, authorization } = incoming.headers
    if (auth.mode !== "off" && header !== undefined) {
      const checked = PeerCheck.check({ ...this.#options, keys: auth.keys }, incoming, header)
      if (checked._tag === "Wrong") return { ...checked, _tag: "PeerRefused" }
      const key = ageOf(checked.key.id, auth.keys.ring().current("registry"))
      return { _tag: "Admitted", caller: { _tag: "Peer", key }, proof: checked.proof }
    }
    const isPeer = isFromPeer(incoming)
    const admitted = this.#admittedClient(authorization)
    if (admitted !== undefined) return admitted === unproved && isPeer ? unprovedPeer : admitted
    if (asked._tag === "Ping") return this.#refuse(Refusal.Unauthorized({ tokens: auth.mode !== "off" }), authorization)
    if (auth.mode === "off") return this.#refuse(Refusal.NoPassword(), authorization)
    return isPeer
      ? { _tag: "PeerRefused", refusal: Refusal.PeerUnproved(), reason: "unproved" }
      : this.#refuse(Refusal.ClientUnproved({ credentials: credentialsOf(authorization) }), authorization)
  }

  #admittedClient(authorization: string | undefined): Admitted | undefined {
    const { auth } = this.#options
    if (auth.mode === "off" && this.#isOpen) return anybody
    const client = this.#clients.of(authorization)
    if (client !== undefined) return auth.mode === "off" ? anybody : { _tag: "Admitted", caller: client }
    return this.#isOpen ? unproved : undefined
  }

  #refuse(refusal: Refusal, authorization: string | undefined): Admission {
    return { _tag: "ClientRefused", refusal, credentials: credentialsOf(authorization) }
  }
}

const credentialsOf = (authorization: string | undefined) => authorization === undefined ? "none" : "wrong"
