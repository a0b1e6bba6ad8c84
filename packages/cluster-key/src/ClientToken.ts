/**
 * The token by which containerd shows its node's mirror, and any other mirror of the cluster, that it may pull:
 * `v1.<key id>.<node>.<signature>`. `spegel configuration` writes it into hosts.toml, as the `Authorization` that containerd
 * sends to the mirror; containerd keeps that header out of its debug log.
 */
import type { KeyRing } from "./KeyRing.ts"

/** The longest name of a node that a token can carry: the longest name of a Kubernetes node. */
export const maxNodeLength = 253

const version = "v1"
const isNode = (node: string) =>
  node.length <= maxNodeLength && /^[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?$/.test(node)

/** Makes the token of a node; undefined if no token can carry the node's name. */
export const make = (ring: KeyRing, node: string): string | undefined => {
  if (!isNode(node)) return undefined
  const key = ring.current("client")
  return `${version}.${key.id}.${node}.${key.sign([version, node]).toString("base64url")}`
}

/** A client whose token is right. */
export interface ProvedClient {
  readonly node: string
  /** The id of the key that signed the token. It is an old one if it is not the first of the ring. */
  readonly keyId: string
}

const form = /^v1\.([0-9a-f]{16})\.([A-Za-z0-9._-]{1,253})\.([A-Za-z0-9_-]{43})$/

/** Whose token this is; undefined if it is none, or if no key of the ring signed it. */
export const verify = (ring: KeyRing, token: string): ProvedClient | undefined => {
  const [, keyId = "", node = "", signature = ""] = form.exec(token) ?? []
  const isRight = ring.find("client", keyId)?.verifies([version, node], Buffer.from(signature, "base64url")) ?? false
  return isRight ? { node, keyId } : undefined
}
