/**
 * The directories in which containerd looks for a hosts.toml (docs/hosts.md of containerd): `host_port_`, then
 * `host:port`, then `_default`. It uses the first that exists, even if it is empty.
 */
import { looksLikeRegistry } from "@spegel-ts/oci/Grammar"
import { type InvalidRegistry, registryHost } from "@spegel-ts/oci/RegistryFilter"
import { Option, Result } from "effect"
import type { Host } from "./HostsReading.ts"

export interface RegistryDirectory {
  readonly name: string
  /** URL of the registry; none if containerd finds it by itself. */
  readonly server: Option.Option<string>
  /** The registry itself as a host; none for `_default`. */
  readonly self: Option.Option<Host>
  /** Hosts that are the registry itself. */
  readonly hosts: ReadonlyArray<string>
}

/** docker.io's API has other names. */
const hostsOf = (host: string) => host === "docker.io" ? [host, "registry-1.docker.io", "index.docker.io"] : [host]

const isLocalhost = (host: string) => /^(?:(?:localhost|127(?:\.\d+){3})(?::\d+)?|\[::1\]:\d+)$/.test(host)

/**
 * The registry as containerd asks it by default. On localhost that is http before 1.7; later versions try https without
 * verification, then http, and do the same with this URL and option.
 */
const selfOf = (host: string): Host =>
  isLocalhost(host)
    ? { url: `http://${host}`, options: { skip_verify: true } }
    : { url: `https://${host === "docker.io" ? "registry-1.docker.io" : host}`, options: {} }

/** The directory of a registry (a host or URL) among the existing `names`; the one to make if it has none. */
export const ofRegistry = (
  registry: string,
  names: ReadonlyArray<string>
): Result.Result<RegistryDirectory, InvalidRegistry> =>
  Result.map(registryHost(registry), (host) => {
    const escaped = host.replace(/:([0-9]+)$/, "_$1_")
    return {
      name: [escaped, host].find((name) => names.includes(name)) ?? escaped,
      // containerd uses https by default. For localhost it also tries http, which a server would forbid.
      server: registry.startsWith("http://") ? Option.some(`http://${host}`) : Option.none(),
      self: Option.some(selfOf(host)),
      hosts: hostsOf(host)
    }
  })

/** The directories that together cover all registries: `_default`, and the existing ones, which hide it. */
export const ofAll = (names: ReadonlyArray<string>): ReadonlyArray<RegistryDirectory> => {
  const hosts = names.map((name) => ({ name, host: name.replace(/^(.+)_([0-9]+)_$/, "$1:$2") }))
  return [
    { name: "_default", server: Option.none(), self: Option.none(), hosts: [] },
    ...hosts.filter(({ host }) => looksLikeRegistry(host)).map(({ host, name }) => ({
      name,
      server: Option.none(),
      self: Option.some(selfOf(host)),
      hosts: hostsOf(host)
    }))
  ]
}
