/**
 * Who may read the debug pages, which show images, tags and peers: whoever is on this node or forwards a port to it, and whoever
 * has a token or the password. Where nobody proves anything (`--peer-auth=off`), everybody may.
 */
import { isLoopback } from "@spegel-ts/router/PeerAddress"
import type { IncomingMessage, OutgoingHttpHeaders } from "node:http"
import { isIP } from "node:net"

/** Whether a connection comes from this host: that of a browser, or `kubectl port-forward`. */
const isFromHere = ({ remoteAddress = "" }: IncomingMessage["socket"]): boolean => isLoopback(remoteAddress)

const hostAndPort = /^(?:\[([^\]]*)\]|([^:]*))(?::[0-9]*)?$/

/**
 * Whether a `Host` header is an address or `localhost`, as after `kubectl port-forward`. A page from elsewhere can give its own
 * name the address of this host, and would then read the debug pages in the browser of whoever visits it (DNS rebinding).
 */
const isOwnName = (host: string | undefined): boolean => {
  const [, six, name = ""] = hostAndPort.exec(host ?? "") ?? []
  return isIP(six ?? name) !== 0 || name.toLowerCase() === "localhost"
}

export interface DebugRefusal {
  readonly status: number
  readonly headers: OutgoingHttpHeaders
  /** In words, with what to do. */
  readonly reason: string
}

const forThisNode: DebugRefusal = {
  status: 401,
  // containerd never asks this port: a challenge can only make a browser ask for the password.
  headers: { "www-authenticate": `Basic realm="spegel-ts", charset="UTF-8"` },
  reason:
    "the debug pages are for this node: forward the port (kubectl port-forward), or send a node's token or the mirror's " +
    "user name and password"
}
const otherName: DebugRefusal = {
  status: 403,
  headers: {},
  reason: "the debug pages are not answered under this name: open them as localhost, or by an IP address"
}

/** Why a request may not read the debug pages; undefined if it may. `accepts` judges its `Authorization`. */
export const refusal = (
  { headers: { authorization, host }, socket }: IncomingMessage,
  accepts: (authorization: string | undefined) => boolean
): DebugRefusal | undefined => {
  if (accepts(authorization)) return undefined
  if (!isFromHere(socket)) return forThisNode
  return isOwnName(host) ? undefined : otherName
}
