/** Sides of an exchange of proofs that state made-up addresses. */
import type { KeyRing } from "@spegel-ts/cluster-key/KeyRing"
import type { Side } from "@spegel-ts/router/internal/proof/Exchange"
import type { Statement } from "@spegel-ts/router/internal/proof/Statement"

/** The multiaddr of TCP port 5001 of `10.0.0.host`. */
export const addressOf = (host: number): Uint8Array => Uint8Array.of(4, 10, 0, 0, host, 6, 0x13, 0x89)

export const statementOf = (host: number): Statement => ({
  addresses: [addressOf(host)],
  servicePort: 5000 + host,
  zone: `zone-${host}`,
  agent: "test",
  capabilities: 1
})

export const sideOf = (self: string, other: string, ring: KeyRing, host = 1): Side => ({
  self,
  other,
  ring,
  statement: statementOf(host)
})
