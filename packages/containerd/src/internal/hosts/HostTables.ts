/**
 * Tables of hosts as text that all versions of containerd read alike.
 *
 * No header may name an IPv6 address for that: go-toml 1 (containerd 1.x) ends a header at the first `]`, and refuses the
 * file. go-toml 2 (containerd 2.x) reads escapes in headers, go-toml 1 does not, and sees a URL without a host, at which
 * containerd 1.x goes on with the next. For containerd 1.x such a host stands as keys below `[host]`, which containerd
 * 2.x does not take for a host. Both together need two spellings of the URL.
 */
import type { TomlTable, TomlValue } from "smol-toml"
import type { Host } from "./HostsReading.ts"

/** A TOML basic string; JSON's escapes are a subset of TOML's. Bytes that are no UTF-8 are replaced, as containerd does. */
const quote = (text: string) => JSON.stringify(Buffer.from(Buffer.from(text, "latin1").toString()).toString("latin1"))

const print = (value: TomlValue | undefined): string =>
  Array.isArray(value)
    ? `[${value.map(print).join(", ")}]`
    : typeof value === "string"
    ? quote(value)
    : `${value === true}`

const isTable = (value: TomlValue | undefined): value is TomlTable =>
  typeof value === "object" && !Array.isArray(value) && !(value instanceof Date)

/** Options at the root of the file, without a header. */
export const printOptions = (options: TomlTable, prefix = ""): ReadonlyArray<string> =>
  Object.entries(options).flatMap(([name, value]) =>
    isTable(value)
      ? Object.entries(value).map(([key, entry]) => `${prefix}${name}.${quote(key)} = ${print(entry)}`)
      : [`${prefix}${name} = ${print(value)}`]
  )

const allCapabilities = { capabilities: ["pull", "resolve", "push"] }

const hasBrackets = (url: string) => url.includes("[")

/** The same place in another spelling. */
export const respelled = ({ options, url }: Host): string =>
  options["override_path"] === true || url.endsWith("/v2") ? `${url}/` : `${url.replace(/\/+$/, "")}/v2`

const printTable = ({ options, url }: Host): ReadonlyArray<string> => {
  const { header, ...others } = options
  const name = hasBrackets(url)
    ? quote(url).replaceAll("/", "\\u002f").replaceAll("[", "\\u005b").replaceAll("]", "\\u005d")
    : quote(url)
  return [
    `[host.${name}]`,
    ...printOptions(others),
    ...header === undefined || !isTable(header) ? [] : [`[host.${name}.header]`, ...printKeys(header)]
  ]
}

const printKeys = (header: TomlTable) =>
  Object.entries(header).map(([key, value]) => `${/^[\w-]+$/.test(key) ? key : quote(key)} = ${print(value)}`)

/**
 * As keys below `[host]`. An inline table where dotted keys make go-toml 2 panic
 * (`skip_verify` behind another one); go-toml 1 does not keep the order of several inline tables.
 */
const printKeysOf = (host: Host): ReadonlyArray<string> => {
  const name = quote(respelled(host))
  // A key makes the table; these are the capabilities that a host has by itself.
  const options: TomlTable = { ...allCapabilities, ...host.options }
  return "skip_verify" in options
    ? [`${name} = { ${printOptions(options).join(", ")} }`]
    : printOptions(options, `${name}.`)
}

/** In the order in which they are to be asked; containerd 1.x asks an IPv6 address once, in its first place. */
export const printHosts = (hosts: ReadonlyArray<Host>): ReadonlyArray<string> => {
  const bracketed = hosts.filter(({ url }) => hasBrackets(url))
  const [first] = bracketed
  const once = [...new Map(bracketed.toReversed().map((host) => [respelled(host), host])).values()].toReversed()
  return hosts.flatMap((host) => [
    ...host === first ? ["[host]", ...once.flatMap(printKeysOf)] : [],
    ...printTable(host)
  ])
}
