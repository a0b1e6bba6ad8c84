/**
 * Finds out whose `Authorization` a request has: a node's token, which its containerd sends, or the user name and password that
 * people's tools send. Such tools can send a token too: as the password of any user.
 */
import { BoundedMap } from "@spegel-ts/background/BoundedMap"
import * as ClientToken from "@spegel-ts/cluster-key/ClientToken"
import type { KeyRing } from "@spegel-ts/cluster-key/KeyRing"
import type { PeerAuthState } from "@spegel-ts/cluster-key/PeerAuth"
import { Option, type Redacted } from "effect"
import * as BasicAuth from "./BasicAuth.ts"

export type Credentials = { readonly username: string; readonly password: Redacted.Redacted }

/** Whether something is signed with the newest key of this node, or with one that is being replaced. */
export type KeyAge = "current" | "old"

export const ageOf = (id: string, current: { readonly id: string }): KeyAge => id === current.id ? "current" : "old"

/** A client that has shown that it may pull. */
export type Client =
  /** This node's own containerd. */
  | { readonly _tag: "Own"; readonly key: KeyAge }
  /** Another node's containerd, or a person who has a token. */
  | { readonly _tag: "Node"; readonly key: KeyAge }
  /** Somebody with the right user name and password. */
  | { readonly _tag: "Basic" }

export interface ClientOptions {
  readonly auth: PeerAuthState
  /** The name of this node, as its token has it; undefined if no token names it. */
  readonly nodeName: string | undefined
  readonly basicAuth: Option.Option<Credentials>
}

/** A node's containerd sends the same header for months; that of other nodes comes while their mirrors restart. */
const maxKnown = 64

const bearer = /^bearer +(\S+)$/i

export class ClientCredentials {
  readonly #options: ClientOptions
  readonly #isRightPassword: (authorization: string) => boolean
  /** By the header. */
  readonly #known = new BoundedMap<string, Client>(maxKnown)
  /** The keys by which `#known` was verified. */
  #ring: KeyRing | undefined

  constructor(options: ClientOptions) {
    this.#options = options
    this.#isRightPassword = Option.match(options.basicAuth, {
      onNone: () => () => false,
      onSome: BasicAuth.verifier
    })
  }

  /** Whose header this is; undefined if it is nobody's who may pull. */
  of(authorization: string | undefined): Client | undefined {
    if (authorization === undefined) return undefined
    const { auth } = this.#options
    const ring = auth.mode === "off" ? undefined : auth.keys.ring()
    if (ring !== this.#ring) {
      this.#ring = ring
      this.#known.clear()
    }
    const known = this.#known.get(authorization)
    if (known !== undefined) return known
    const client = this.#verify(authorization, ring)
    if (client !== undefined) this.#known.set(authorization, client)
    return client
  }

  #verify(authorization: string, ring: KeyRing | undefined): Client | undefined {
    if (this.#isRightPassword(authorization)) return { _tag: "Basic" }
    if (ring === undefined) return undefined
    const token = bearer.exec(authorization)?.[1]
    const proved = ClientToken.verify(ring, token ?? BasicAuth.passwordOf(authorization) ?? "")
    if (proved === undefined) return undefined
    const key = ageOf(proved.keyId, ring.current("client"))
    // containerd sends a bearer token. What a person does with a node's token is not this node's own pull.
    const isOwn = token !== undefined && proved.node === this.#options.nodeName
    return { _tag: isOwn ? "Own" : "Node", key }
  }
}
