/** URLs from templates that know a node's address but not its family: `http://fd00::7:30020/readyz`. */
import { isIPv6 } from "node:net"

const bareIpv6 = /^(https?:\/\/)([0-9a-f:]+):(\d{1,5})(?=\/|$)/i

/** Adds brackets around an IPv6 address that has none. */
export const withBrackets = (url: string): string =>
  url.replace(
    bareIpv6,
    (all, scheme: string, host: string, port: string) => isIPv6(host) ? `${scheme}[${host}]:${port}` : all
  )
