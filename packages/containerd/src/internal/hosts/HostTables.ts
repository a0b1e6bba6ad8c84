/**
 * Prints tables of hosts so that all versions of containerd read them alike.
 *
 * A header must not contain an IPv6 address: go-toml 1 (containerd 1.x) ends a header at the first `]` and refuses the
 * file. go-toml 2 (containerd 2.x) reads escapes in headers; go-toml 1 does not, sees a URL without a host, and
 * containerd 1.x skips it. So for containerd 1.x we write such a host as keys below `[host]`, which containerd 2.x does
 * not take for a host. Both forms together need two spellings of the URL.
 */
import type { TomlTable, TomlValue } from "smol-toml"
import type { Host } from "./HostsReading.ts"

/** A TOML basic string; JSON's escapes are a subset of TOML's. Invalid UTF-8 is replaced, as containerd does. */
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
 * A host as keys below `[host]`. We use an inline table only if dotted keys would make go-toml 2 panic (`skip_verify`
 * behind another one), because go-toml 1 does not keep the order of several inline tables.
 */
const printKeysOf = (host: Host): ReadonlyArray<string> => {
  const name = quote(respelled(host))
  // The table needs at least one key; these capabilities are the default.
  const options: TomlTable = { ...allCapabilities, ...host.options }
  return "skip_verify" in options
    ? [`${name} = { ${printOptions(options).join(", ")} }`]
    : printOptions(options, `${name}.`)
}

/**
 * The hosts in the order in which they are to be asked. containerd 1.x asks an IPv6 address once, at its first place.
 */
export const printHosts = (hosts: ReadonlyArray<Host>): ReadonlyArray<string> => {
  const bracketed = hosts.filter(({ url }) => hasBrackets(url))
  const [first] = bracketed
  const once = [...new Map(bracketed.toReversed().map((host) => [respelled(host), host])).values()].toReversed()
  return hosts.flatMap((host) => [
    ...host === first ? ["[host]", ...once.flatMap(printKeysOf)] : [],
    ...printTable(host)
  ])
}
