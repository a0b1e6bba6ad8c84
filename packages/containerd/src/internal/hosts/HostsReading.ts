/**
 * How each version of containerd reads a `hosts.toml`. One value that it does not accept makes it refuse the whole
 * file. It says so only in its log, and goes on as if the directory contained nothing but certificates.
 */
import { Option, Result } from "effect"
import { isUtf8 } from "node:buffer"
import { parse, type TomlTable, type TomlValue } from "smol-toml"
import * as TomlReader from "./TomlReader.ts"

export interface Host {
  readonly url: string
  /** The options that containerd knows, by their canonical names. */
  readonly options: TomlTable
}

export interface Reading {
  /** In the order in which containerd asks them. */
  readonly hosts: ReadonlyArray<Host>
  /** Asked after the hosts; without it containerd asks the registry itself. */
  readonly server: Option.Option<string>
  /** Options of the server, or of the registry itself. */
  readonly options: TomlTable
}

/** Versions of containerd that read the same file in different ways. */
interface Version {
  readonly name: string
  /** go-toml 2 accepts keys in any case, and takes only tables with headers for hosts. */
  readonly library: 1 | 2
  readonly hasDialTimeout: boolean
  readonly hasReferrers: boolean
}

const versions: ReadonlyArray<Version> = [
  { name: "2.2", library: 2, hasDialTimeout: true, hasReferrers: true },
  { name: "2.1", library: 2, hasDialTimeout: true, hasReferrers: false },
  { name: "2.0", library: 2, hasDialTimeout: false, hasReferrers: false },
  { name: "1.x", library: 1, hasDialTimeout: false, hasReferrers: false }
]

export interface Readings {
  /** The file as each version of containerd reads it, the newest first; none for a version that refuses it, or may. */
  readonly ways: ReadonlyArray<Option.Option<Reading>>
  /** Whether the file has a key `server`, even an empty one. */
  readonly hasServer: boolean
  /** Headers of its tables; empty if no version can read it. */
  readonly headers: ReadonlyArray<TomlReader.Header>
  /** Why some or all versions refuse it. */
  readonly reasons: ReadonlyArray<string>
}

/** containerd takes a URL without a scheme as https. */
const withScheme = (url: string) => url.startsWith("http") ? url : `https://${url}`

const path = String.raw`(?:/(?:[^\x00-\x20\x7f%"'\\\[\]?#]|%[\da-fA-F]{2})*)?`
const rest = String.raw`(?:[/?#](?:[^\x00-\x1f\x7f%]|%[\da-fA-F]{2})*)?$`
const user = String.raw`(?:[^\x00-\x20\x7f-\xff/?#\[\]@\\%]*@)?`

/** A URL that containerd can send requests to. It drops what follows `?`. */
const askable = new RegExp(
  String
    .raw`^(https?://${user}(?:[\w.~!$&'()*+,;=\x80-\xff-]+|\[[\da-fA-F:.]+\]|(?=:\d))(?::\d*)?${path})(?:[?#][\x20-\x7e]*)?$`
)
/** URLs that at least some versions of Go accept. */
const parseable = [
  new RegExp(
    String.raw`^https?://${user}(?:[\w.~!$&'()*+,;=<>":\x80-\xff-]*:\d*|[\w.~!$&'()*+,;=<>"\x80-\xff-]*)${rest}`
  ),
  new RegExp(String.raw`^https?:(?!//)(?:[^\x00-\x1f\x7f%]|%[\da-fA-F]{2})*$`),
  new RegExp(String.raw`^http(?!s?:)[\w.+-]*(?::\d*)?${rest}`)
]

/** Whether containerd can send requests to it. */
const isAskable = (url: string): boolean => askable.test(withScheme(url))

const isUrl = (url: string): boolean =>
  url === "" || isAskable(url) || parseable.some((pattern) => pattern.test(withScheme(url)))

/** containerd takes a server URL without a host as the registry itself. */
const hasHost = (url: string): boolean => /^https?:\/\/(?:[^/?#]*@)?[^/?#]/.test(withScheme(url))

/** The URL in a form that all versions of containerd accept; none if they cannot send requests to it. */
export const plainUrl = (url: string): Option.Option<string> => {
  const found = askable.exec(withScheme(url))?.[1]
  return found === undefined
    ? Option.none()
    : Option.some(url.startsWith("http") ? found : found.slice("https://".length))
}

const goDuration = /^[+-]?(?:0|(?:(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|\xc2\xb5s|\xce\xbcs|ms|s|m|h))+)$/

/** The values of a key, in all spellings that the version accepts. */
const valuesOf = (table: TomlReader.Table, name: string, { library }: Version): ReadonlyArray<TomlReader.Value> => {
  const keys = library === 2
    ? [...table.entries.keys()].filter((key) => key.toLowerCase() === name)
    : [name, name.toUpperCase()].filter((key) => table.entries.has(key)).slice(0, 1)
  return keys.map((key) => table.entries.get(key) ?? "")
}

const isString = (value: TomlReader.Value): value is string => typeof value === "string"
const isBoolean = (value: TomlReader.Value): value is boolean => typeof value === "boolean"
const isStrings = (value: TomlReader.Value): value is ReadonlyArray<string> =>
  Array.isArray(value) && value.every(isString)
const isTable = (value: TomlReader.Value): value is TomlReader.Table => value instanceof TomlReader.Table

interface OptionKind<A extends TomlReader.Value = TomlReader.Value> {
  readonly name: string
  /** The type that the library wants, in all tables of hosts. */
  readonly isType: (value: TomlReader.Value) => value is A
  /** The value as containerd understands it in the table of a host that it asks; undefined if it refuses it. */
  readonly take: (value: A, version: Version) => TomlValue | undefined
}

const option = <A extends TomlReader.Value>(kind: OptionKind<A>) => kind as unknown as OptionKind

const isAny = (value: TomlReader.Value): value is TomlReader.Value => value !== undefined

/** The options that containerd knows. */
const optionKinds: ReadonlyArray<OptionKind> = [
  option({
    name: "capabilities",
    isType: isStrings,
    take: (value, { hasReferrers }) => {
      const names = value.map((name) => name.toLowerCase())
      const known = new Set(["pull", "resolve", "push", ...hasReferrers ? ["referrers"] : []])
      return names.every((name) => known.has(name)) ? names : undefined
    }
  }),
  option({
    name: "ca",
    isType: isAny,
    take: (value) => isString(value) ? [value] : isStrings(value) ? [...value] : undefined
  }),
  option({
    name: "client",
    isType: isAny,
    take: (value) => {
      if (isString(value)) return [value]
      const isPair = (entry: TomlReader.Value) => isString(entry) || isStrings(entry) && entry.length === 2
      return Array.isArray(value) && value.every(isPair) ? value as Array<string | Array<string>> : undefined
    }
  }),
  option({ name: "skip_verify", isType: isBoolean, take: (value) => value }),
  option({ name: "override_path", isType: isBoolean, take: (value) => value }),
  option({
    name: "header",
    isType: isTable,
    take: ({ entries }) => {
      const header: TomlTable = {}
      for (const [name, value] of entries) {
        if (!isString(value) && !isStrings(value)) return undefined
        header[name] = isString(value) ? [value] : [...value]
      }
      return header
    }
  }),
  option({
    name: "dial_timeout",
    isType: isString,
    take: (value) => value === "" || goDuration.test(value) ? value : undefined
  })
]

/** Fails with the name of the option that is refused. */
const optionsOf = (table: TomlReader.Table, version: Version, isAsked: boolean): Result.Result<TomlTable, string> => {
  const options: TomlTable = {}
  for (const { isType, name, take } of optionKinds) {
    const isKnown = name !== "dial_timeout" || version.hasDialTimeout
    for (const value of valuesOf(table, name, version)) {
      const taken = isType(value) ? take(value, version) : undefined
      if (isKnown && (!isType(value) || isAsked && taken === undefined)) {
        return Result.fail(`${name} has a value that containerd refuses`)
      }
      // An option that this version does not know is kept for those that do.
      if (taken !== undefined) options[name] = taken
    }
  }
  const { capabilities, dial_timeout, ...others } = options
  return Result.succeed({
    ...Array.isArray(capabilities) && capabilities.length > 0 ? { capabilities } : {},
    ...others,
    ...dial_timeout === undefined || dial_timeout === "" ? {} : { dial_timeout }
  })
}

/** The tables of hosts, and the URLs in the order in which the version asks them. */
const hostsOf = ({ headers, root }: TomlReader.Document, version: Version) =>
  Result.gen(function*() {
    const exact = root.entries.get("host")
    if (version.library === 1 && !isTable(exact ?? "")) return yield* Result.fail("there is no table [host]")
    const all = version.library === 1 ? [exact ?? ""] : valuesOf(root, "host", version)
    const tables = new Map<string, TomlReader.Table>()
    for (const table of all) {
      if (!isTable(table)) return yield* Result.fail("host is not a table")
      for (const [url, entry] of table.entries) {
        if (!isTable(entry)) return yield* Result.fail(`the host ${url} is not a table`)
        tables.set(url, entry)
      }
    }
    const urls = version.library === 1
      ? [...tables].toSorted(([, one], [, other]) => one.position - other.position).map(([url]) => url)
      // containerd skips an empty name.
      : headers.flatMap(({ isArray, path: [first, url = ""] }) =>
        !isArray && first === "host" && url !== "" ? [url] : []
      )
    return { tables, urls: new Set(urls) }
  })

const readAs = (document: TomlReader.Document, version: Version): Result.Result<Reading, string> =>
  Result.gen(function*() {
    const { tables, urls } = yield* hostsOf(document, version)
    const servers = valuesOf(document.root, "server", version)
    if (!servers.every(isString)) return yield* Result.fail("server is not a string")
    const server = servers.at(-1) ?? ""
    const wrong = [...urls, server].find((url) => !isUrl(url))
    if (wrong !== undefined) return yield* Result.fail(`${wrong} is not a URL`)
    const options = new Map<string, TomlTable>()
    for (const [url, table] of tables) options.set(url, yield* optionsOf(table, version, urls.has(url)))
    const hosts = [...urls].map((url) => ({ url, options: options.get(url) ?? {} }))
    const root = yield* optionsOf(document.root, version, true)
    if (hasHost(server)) return { hosts, server: Option.some(server), options: root }
    // containerd gives the registry itself all capabilities.
    const { capabilities: _, ...others } = root
    return { hosts, server: Option.none(), options: others }
  })

/** containerd uses the root, `host`, each host, and its header. */
const isWanted = (path: ReadonlyArray<string>): boolean => {
  const [first, , third] = path.map((name) => name.toLowerCase())
  return first === undefined || first === "header" || first === "host" && (third === undefined || third === "header")
}

const isStrict = (text: string): boolean =>
  isUtf8(Buffer.from(text, "latin1")) && Result.isSuccess(Result.try(() => parse(text)))

/** The reasons; one that does not apply to all versions names those to which it does. */
const byVersion = (failures: ReadonlyArray<Option.Option<string>>): ReadonlyArray<string> => {
  const reasons = new Set(failures.flatMap(Option.toArray))
  return [...reasons].map((reason) => {
    const names = versions.flatMap(({ name }, index) =>
      Option.contains(failures[index] ?? Option.none(), reason) ? [name] : []
    )
    return names.length === versions.length ? reason : `${reason} (containerd ${names.toReversed().join(", ")})`
  })
}

export const read = (text: string): Readings => {
  const document = TomlReader.read(text, isWanted)
  if (Result.isFailure(document)) {
    return { ways: [Option.none()], hasServer: false, headers: [], reasons: [document.failure] }
  }
  const { headers, isOdd, root } = document.success
  const readings = versions.map((version) => readAs(document.success, version))
  const reasons = byVersion(readings.map(Result.getFailure))
  const ways = readings.map(Result.getSuccess)
  const urls = ways.flatMap(Option.toArray).flatMap(({ hosts, server }) =>
    hosts.map(({ url }) => url).concat(Option.toArray(server))
  )
  const doubts = ways.every(Option.isNone) ? [] : [
    ...isOdd || !isStrict(text) ? ["it is not strict TOML, which some versions of containerd refuse"] : [],
    ...urls.filter((url) => !isAskable(url)).map((url) => `the host ${JSON.stringify(url)} cannot be asked`)
  ]
  return {
    ways: doubts.length === 0 ? ways : [...ways, Option.none()],
    hasServer: [...root.entries.keys()].some((key) => key.toLowerCase() === "server"),
    headers,
    reasons: [...new Set([...doubts, ...reasons])]
  }
}

/** The index of a version (`1.6.20~ds1`, `v2.1.9`) in `versions`; a newer one reads as the newest does. */
const indexOf = (containerd: string): number => {
  const [, major = "2", minor = "2"] = /^v?(\d+)\.(\d+)/.exec(containerd) ?? []
  if (Number(major) < 2) return versions.length - 1
  return Math.max(0, versions.findIndex(({ name }) => name === `${major}.${minor}`))
}

/** The file as one version of containerd reads it; none if it refuses it. */
export const readBy = ({ ways }: Readings, containerd: string): Option.Option<Reading> => {
  // A text that no version can read has one entry.
  return Option.flatten(Option.fromUndefinedOr(ways[indexOf(containerd)]))
}
