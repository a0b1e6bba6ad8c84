/**
 * Directories of hosts.toml files as containerd looks for them (docs/hosts.md of containerd): `host_port_`, then
 * `host:port`, then `_default`. The first that is there counts alone, be it empty.
 */
import { looksLikeRegistry } from "@spegel-ts/oci/Grammar"
import { type InvalidRegistry, registryHost } from "@spegel-ts/oci/RegistryFilter"
import { Option, Result } from "effect"
import type { Host } from "./HostsReading.ts"

export interface RegistryDirectory {
  readonly name: string
  /** Where the registry itself is reached, where that is not as containerd does by itself. */
  readonly server: Option.Option<string>
  /** The registry itself as a host; none in the directory of all. */
  readonly self: Option.Option<Host>
  /** Hosts that are the registry itself. */
  readonly hosts: ReadonlyArray<string>
  /** Whether it is there because of its name alone, and not because anybody named the registry. */
  readonly isFound: boolean
}

/** docker.io's API has other names. */
const hostsOf = (host: string) => host === "docker.io" ? [host, "registry-1.docker.io", "index.docker.io"] : [host]

const isLocalhost = (host: string) => /^(?:(?:localhost|127(?:\.\d+){3})(?::\d+)?|\[::1\]:\d+)$/.test(host)

/**
 * The registry as containerd asks it where nobody says how. On localhost that is http before 1.7; later it is https
 * without verification, then http, which is what later versions make of this URL and option too.
 */
const selfOf = (host: string): Host =>
  isLocalhost(host)
    ? { url: `http://${host}`, options: { skip_verify: true } }
    : { url: `https://${host === "docker.io" ? "registry-1.docker.io" : host}`, options: {} }

/** The directory of a registry, as a host or URL, among those that are there; the one to make where it has none. */
export const ofRegistry = (
  registry: string,
  names: ReadonlyArray<string>
): Result.Result<RegistryDirectory, InvalidRegistry> =>
  Result.map(registryHost(registry), (host) => {
    const escaped = host.replace(/:([0-9]+)$/, "_$1_")
    return {
      name: [escaped, host].find((name) => names.includes(name)) ?? escaped,
      // https is what containerd does, and http to localhost may not be forbidden to it.
      server: registry.startsWith("http://") ? Option.some(`http://${host}`) : Option.none(),
      self: Option.some(selfOf(host)),
      hosts: hostsOf(host),
      isFound: false
    }
  })

/** The directories that stand for all registries, among those that are there. */
export const ofAll = (names: ReadonlyArray<string>): ReadonlyArray<RegistryDirectory> => {
  const hosts = names.map((name) => ({ name, host: name.replace(/^(.+)_([0-9]+)_$/, "$1:$2") }))
  return [
    { name: "_default", server: Option.none(), self: Option.none(), hosts: [], isFound: false },
    ...hosts.filter(({ host }) => looksLikeRegistry(host)).map(({ host, name }) => ({
      name,
      server: Option.none(),
      self: Option.some(selfOf(host)),
      hosts: hostsOf(host),
      isFound: true
    }))
  ]
}
