/**
 * libp2p's TLS, loaded when a peer first asks for it. Nodes of this implementation agree on noise, and the code of TLS, most
 * of it for certificates, would be a tenth of all code in memory.
 */
import type { ConnectionEncrypter } from "@libp2p/interface"
import type { TLSComponents } from "@libp2p/tls"

export const tls = () => (components: TLSComponents): ConnectionEncrypter => {
  let loaded: Promise<ConnectionEncrypter> | undefined
  const load = () => loaded ??= import("@libp2p/tls").then((module) => module.tls()(components))
  return {
    protocol: "/tls/1.0.0",
    secureInbound: async (stream, options) => (await load()).secureInbound(stream, options),
    secureOutbound: async (stream, options) => (await load()).secureOutbound(stream, options)
  }
}
