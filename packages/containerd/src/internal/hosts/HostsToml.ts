/**
 * containerd's `hosts.toml` as text (docs/hosts.md of containerd): what we write stands in marked blocks, and what others
 * wrote comes back to the byte when they are removed.
 *
 * Order is meaning in this file: hosts are tried as their tables stand, and a root key such as `server` that comes after
 * a table belongs to that table. So the first block goes behind the root keys and in front of the first table, and hosts
 * that are not to be asked any more are suspended where they stand. Where that does not lead all versions of containerd
 * to the same hosts, the whole text is suspended, and the block says in a plain way what containerd made of it.
 */
import { Option, Result } from "effect"
import { isDeepStrictEqual } from "node:util"
import type { TomlTable } from "smol-toml"
import * as HostsBlocks from "./HostsBlocks.ts"
import * as HostsReading from "./HostsReading.ts"
import { areAlike, mergeOptions, union, withoutDefault } from "./HostsUnion.ts"
import { printHosts, printOptions } from "./HostTables.ts"

export { HostsTomlUnusable, restore, type Undo } from "./HostsBlocks.ts"

/**
 * Who is asked for a tag. `mirror`: the mirror, then upstream. `upstream-first`: upstream, and the mirror only where
 * upstream does not answer. `never`: upstream alone. Digests are always asked of the mirror first.
 */
export type TagResolution = "mirror" | "upstream-first" | "never"

/** The mirror as hosts of a file. */
export interface Mirror {
  /** URLs without a slash at the end, `http://127.0.0.1:5000`, in the order in which they are asked. */
  readonly targets: ReadonlyArray<string>
  readonly tagResolution: TagResolution
  /** Value of an `Authorization` header for the targets. */
  readonly authorization: Option.Option<string>
}

/** The registry that a file is for. */
export interface Upstream {
  /** Written as `server` where the file has none. Without it containerd asks the registry itself in its own way. */
  readonly server: Option.Option<string>
  /** The registry itself as a host; none where the file is for several. */
  readonly self: Option.Option<HostsReading.Host>
  /** Hosts that are the registry itself and no mirror of it: their tables are never suspended. */
  readonly hosts: ReadonlyArray<string>
  /** Certificates that containerd takes by their names where it reads no file. */
  readonly certificates: {
    readonly all: TomlTable
    /** Those that cannot break a pull by a version that did not take them. */
    readonly loadable: TomlTable
  }
}

/** What is to stand in a file. */
export interface InstallOptions {
  readonly mirror: Mirror
  readonly upstream: Upstream
  /** Whether hosts that the file names already are asked behind the mirror; else they are suspended. */
  readonly prependExisting: boolean
  /** What `restore` has to tell besides the text. */
  readonly undo: HostsBlocks.Undo
}

/** A file with the mirror in it. */
export interface Installed {
  readonly text: string
  /** URLs of hosts that are not asked any more. */
  readonly removed: ReadonlyArray<string>
  /** Why some or all versions of containerd did not take the text as it was; empty where all did. */
  readonly refused: ReadonlyArray<string>
}

const hostOf = (url: string) => URL.parse(url.includes("://") ? url : `https://${url}`)?.host ?? url

/** Upstream that drops packets in an outage: without a timeout each tag waits 30 s for it. */
const upstreamDefaults = { capabilities: ["pull", "resolve"], dial_timeout: "5s" }

const mirrorHost = (
  url: string,
  capabilities: ReadonlyArray<string>,
  { authorization }: Mirror
): HostsReading.Host => ({
  url,
  options: {
    capabilities: [...capabilities],
    // containerd 2.1 and later; older ones ignore it, and wait 30 s for a host that drops packets.
    dial_timeout: "200ms",
    ...Option.match(authorization, { onNone: () => ({}), onSome: (value) => ({ header: { authorization: [value] } }) })
  }
})

/**
 * Hosts behind all others. Measured with containerd 1.6, 1.7 and 2.1: a tag is asked of the hosts with both capabilities,
 * manifests and blobs of all hosts, whatever they are said to be capable of. So with `upstream-first` the mirror stands
 * first, for digests alone, then upstream, then the mirror again in another spelling, for tags in an outage.
 */
const fallback = (
  { mirror, upstream }: InstallOptions,
  { hosts, options, server }: HostsReading.Reading
): Result.Result<ReadonlyArray<HostsReading.Host>, HostsBlocks.HostsTomlUnusable> => {
  if (mirror.tagResolution !== "upstream-first") return Result.succeed([])
  const named = Option.orElse(server, () => upstream.server)
  const first = Option.orElse(
    Option.map(named, (url): HostsReading.Host => ({ url, options: {} })),
    () => upstream.self
  )
  if (Option.isNone(first)) {
    return Result.fail(
      new HostsBlocks.HostsTomlUnusable({ reason: "names no upstream to ask first: upstream-first needs one" })
    )
  }
  const { url } = first.value
  return Result.succeed([
    ...hosts.some((host) => host.url === url)
      ? []
      : [{ url, options: { ...upstreamDefaults, ...first.value.options, ...options } }],
    ...mirror.targets.map((target) => mirrorHost(`${target}/`, ["pull", "resolve"], mirror))
  ])
}

/** What is to be asked, and what is left out for it. */
interface Plan {
  readonly mirrors: ReadonlyArray<HostsReading.Host>
  readonly kept: ReadonlyArray<HostsReading.Host>
  readonly last: ReadonlyArray<HostsReading.Host>
  readonly server: Option.Option<string>
  readonly options: TomlTable
  readonly certificates: TomlTable
  readonly removed: ReadonlyArray<string>
}

const planOf = (text: string, { hasServer, ways }: HostsReading.Readings, options: InstallOptions) =>
  Result.gen(function*() {
    const { mirror, prependExisting, upstream } = options
    const reading = union(ways)
    const own = new Set([
      ...upstream.hosts.flatMap((host) => [hostOf(`http://${host}`), hostOf(`https://${host}`)]),
      ...ways.flatMap(Option.toArray).flatMap(({ server }) => Option.toArray(server)).map(hostOf)
    ])
    const isKept = ({ url }: HostsReading.Host) =>
      !mirror.targets.includes(url.replace(/\/+$/, "")) && (prependExisting || own.has(hostOf(url)))
    const kept = reading.hosts.filter(isKept)
    const capabilities = mirror.tagResolution === "mirror" ? ["pull", "resolve"] : ["pull"]
    const plan: Plan = {
      mirrors: mirror.targets.map((target) => mirrorHost(target, capabilities, mirror)),
      kept,
      last: yield* fallback(options, { ...reading, hosts: kept }),
      server: hasServer ? reading.server : upstream.server,
      options: reading.options,
      certificates: text === "" || ways.every(Option.isNone)
        ? upstream.certificates.all
        : ways.some(Option.isNone)
        ? upstream.certificates.loadable
        : {},
      removed: reading.hosts.filter((host) => !isKept(host)).map(({ url }) => url)
    }
    return plan
  })

const rootLines = (server: Option.Option<string>, options: TomlTable) => [
  ...Option.toArray(Option.map(server, (url) => `server = ${JSON.stringify(url)}`)),
  ...printOptions(options)
]

/** The text with blocks in it: its hosts stay where they stand, or are suspended there. */
const insert = (
  text: string,
  { hasServer, headers }: HostsReading.Readings,
  plan: Plan,
  undo: ReadonlyArray<string>
): string => {
  const starts = headers.map(({ at }) => text.lastIndexOf("\n", at) + 1)
  let result = HostsBlocks.addBlock(text.slice(0, starts[0] ?? text.length), undo, [
    ...rootLines(hasServer ? Option.none() : plan.server, plan.certificates),
    ...printHosts(plan.mirrors)
  ])
  const kept = new Set(plan.kept.map(({ url }) => url))
  let pending = ""
  for (const [index, { path: [first, url] }] of headers.entries()) {
    const section = text.slice(starts[index], starts[index + 1])
    if (first === "host" && url !== undefined && !kept.has(url)) pending += section
    else {
      result += HostsBlocks.suspend(pending) + section
      pending = ""
    }
  }
  result += HostsBlocks.suspend(pending)
  return plan.last.length > 0 ? HostsBlocks.addBlock(result, [], printHosts(plan.last)) : result
}

/** A block that says all, in front of the text as comments. */
const replace = (text: string, plan: Plan, undo: ReadonlyArray<string>): string => {
  const options = mergeOptions(plan.options, plan.certificates)
  const hosts = [...plan.mirrors, ...plan.kept, ...plan.last].flatMap((host) =>
    Option.toArray(Option.map(HostsReading.plainUrl(host.url), (url) => ({ ...host, url })))
  )
  const server = Option.flatMap(plan.server, HostsReading.plainUrl)
  return HostsBlocks.addBlock("", undo, [...rootLines(server, options), ...printHosts(hosts)])
    + HostsBlocks.suspend(text)
}

/** Whether all versions of containerd ask for the plan where they read the text. */
const isRead = (text: string, { kept, last, mirrors, server }: Plan, { self }: Upstream): boolean => {
  const urls = [...mirrors, ...kept, ...last].map(({ url }) => url)
  return withoutDefault(HostsReading.read(text).ways, self).every((way) =>
    Option.isSome(way) && isDeepStrictEqual([way.value.hosts.map(({ url }) => url), way.value.server], [urls, server])
  )
}

/** The text with the mirror in it. `text` is without our blocks; empty where there is no file. */
export const install = (
  text: string,
  options: InstallOptions
): Result.Result<Installed, HostsBlocks.HostsTomlUnusable> =>
  Result.gen(function*() {
    const { undo, upstream } = options
    const undoFile = [
      ...Option.toArray(undo.made),
      ...Option.toArray(Option.map(undo.mode, (mode) => `mode ${mode.toString(8)}`))
    ]
    const found = HostsReading.read(text)
    const readings = { ...found, ways: withoutDefault(found.ways, upstream.self) }
    const plan = yield* planOf(text, readings, options)
    if (areAlike(readings.ways)) {
      const inserted = insert(text, readings, plan, undoFile)
      const refused = readings.ways.every(Option.isNone) ? readings.reasons : []
      if (isRead(inserted, plan, upstream)) return { text: inserted, removed: plan.removed, refused }
    }
    const refused = text.trim() === "" ? [] : readings.reasons
    return { text: replace(text, plan, undoFile), removed: plan.removed, refused }
  })
