/** The addresses of a cluster's machines, pods and services, all of one family. */

export interface Addresses {
  readonly family: "IPv4" | "IPv6"
  /** The address of a machine by its number, from 1 to 99. */
  readonly machine: (number: number) => string
  /** Bits of the prefix of the subnet with all machines. */
  readonly prefix: number
  /** The range of a node's pods, by the node's number. */
  readonly podsOf: (number: number) => string
  readonly pods: string
  readonly services: string
  /** The service of the API server. */
  readonly api: string
  readonly dns: string
  readonly anywhere: string
}

export const ipv4: Addresses = {
  family: "IPv4",
  machine: (number) => `10.99.0.${number}`,
  prefix: 24,
  podsOf: (number) => `10.244.${number}.0/24`,
  pods: "10.244.0.0/16",
  services: "10.96.0.0/16",
  api: "10.96.0.1",
  dns: "10.96.0.10",
  anywhere: "0.0.0.0/0"
}

export const ipv6: Addresses = {
  family: "IPv6",
  machine: (number) => `fd99::${number}`,
  prefix: 64,
  podsOf: (number) => `fd44:0:0:${number}::/64`,
  pods: "fd44::/48",
  services: "fd96::/112",
  api: "fd96::1",
  dns: "fd96::10",
  anywhere: "::/0"
}

/** An address as URLs have it: IPv6 in brackets. */
export const inUrl = (address: string): string => address.includes(":") ? `[${address}]` : address
