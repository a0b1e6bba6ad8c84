/**
 * Directories of hosts.toml files as containerd looks for them (docs/hosts.md of containerd): `host_port_`, then
 * `host:port`, then `_default`. The first that is there counts alone, be it empty.
 */
import { looksLikeRegistry } from "@spegel-ts/oci/Grammar"
import { type InvalidRegistry, registryHost } from "@spegel-ts/oci/RegistryFilter"
import { Option, Result } from "effect"

export interface RegistryDirectory {
  readonly name: string
  /** Where the registry itself is reached, where that is known. */
  readonly url: Option.Option<string>
  /** Hosts that are the registry itself. */
  readonly hosts: ReadonlyArray<string>
  /** Whether it is there because of its name alone, and not because anybody named the registry. */
  readonly isFound: boolean
}

/** docker.io's API has other names. */
const hostsOf = (host: string) => host === "docker.io" ? [host, "registry-1.docker.io", "index.docker.io"] : [host]

const urlOf = (registry: string, host: string): string =>
  host === "docker.io" ? "https://registry-1.docker.io" : /^https?:\/\//.test(registry) ? registry : `https://${host}`

/** The directory of a registry, as a host or URL, among those that are there; the one to make where it has none. */
export const ofRegistry = (
  registry: string,
  names: ReadonlyArray<string>
): Result.Result<RegistryDirectory, InvalidRegistry> =>
  Result.map(registryHost(registry), (host) => {
    const escaped = host.replace(/:([0-9]+)$/, "_$1_")
    return {
      name: [escaped, host].find((name) => names.includes(name)) ?? escaped,
      url: Option.some(urlOf(registry.replace(/\/+$/, ""), host)),
      hosts: hostsOf(host),
      isFound: false
    }
  })

/** The directories that stand for all registries, among those that are there. */
export const ofAll = (names: ReadonlyArray<string>): ReadonlyArray<RegistryDirectory> => {
  const hosts = names.map((name) => ({ name, host: name.replace(/^(.+)_([0-9]+)_$/, "$1:$2") }))
  return [
    { name: "_default", url: Option.none(), hosts: [], isFound: false },
    ...hosts.filter(({ host }) => looksLikeRegistry(host)).map(({ host, name }) => ({
      name,
      url: Option.none(),
      hosts: hostsOf(host),
      isFound: true
    }))
  ]
}

/**
 * The options `ca` and `client` of the certificates in a directory, which containerd takes by their names, as Docker
 * does, until there is a hosts.toml.
 */
export const certificates = (names: ReadonlyArray<string>) => {
  const ca = names.filter((name) => name.endsWith(".crt"))
  const client = names.filter((name) => name.endsWith(".cert")).flatMap((certificate) => {
    const key = certificate.replace(/cert$/, "key")
    return names.includes(key) ? [[certificate, key]] : []
  })
  return { ...(ca.length === 0 ? {} : { ca }), ...(client.length === 0 ? {} : { client }) }
}
