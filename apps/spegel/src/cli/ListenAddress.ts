/** Addresses to listen on, as Go writes them: `:5000`, `127.0.0.1:5000`, `[::1]:5000`. */
import { Option } from "effect"
import { isIP } from "node:net"
import { textSchema } from "./TextSchema.ts"

export interface ListenAddress {
  /** An IP address; none means all addresses of the machine. */
  readonly host: Option.Option<string>
  readonly port: number
}

const parse = (text: string): Option.Option<ListenAddress> => {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]*)):(\d{1,5})$/.exec(text)
  if (match === null || Number(match[3]) > 65_535) return Option.none()
  const host = match[1] ?? match[2] ?? ""
  if (host !== "" && isIP(host) === 0) return Option.none()
  return Option.some({ host: host === "" ? Option.none() : Option.some(host), port: Number(match[3]) })
}

/** The address as Go writes it. */
export const print = ({ host, port }: ListenAddress): string =>
  Option.match(host, {
    onNone: () => `:${port}`,
    onSome: (host) => isIP(host) === 6 ? `[${host}]:${port}` : `${host}:${port}`
  })

/** Where to connect on this machine to reach a listener: one on all interfaces is reached on loopback. */
export const localHost = ({ host }: ListenAddress): string => {
  const named = Option.getOrElse(host, () => "0.0.0.0")
  return named === "0.0.0.0" ? "127.0.0.1" : named === "::" ? "::1" : named
}

/** The base URL of a listener of this machine. */
export const localUrl = (address: ListenAddress): string =>
  `http://${print({ ...address, host: Option.some(localHost(address)) })}`

export const ListenAddress = textSchema<ListenAddress>({
  expected: "an address to listen on, such as :5000, 10.0.0.7:5000 or [::1]:5000",
  parse,
  print
})
