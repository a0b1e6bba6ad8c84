/**
 * Edits containerd's `hosts.toml` as text (docs/hosts.md of containerd). We write marked blocks; when they are removed,
 * the text of others is restored to the byte. `docs/decisions/0014-hosts-toml.md` tells why.
 *
 * The order of the file matters: containerd tries hosts in the order of their tables, and a root key such as `server`
 * that follows a table belongs to that table. So the first block goes between the root keys and the first table, and
 * hosts that are no longer to be asked are suspended in place. If that does not lead all versions of containerd to the
 * same hosts, we suspend the whole text, and the block says in plain TOML what containerd made of it.
 */
import { Option, Result } from "effect"
import { isDeepStrictEqual } from "node:util"
import type { TomlTable } from "smol-toml"
import * as HostsBlocks from "./HostsBlocks.ts"
import * as HostsReading from "./HostsReading.ts"
import { areAlike, mergeOptions, union, withoutDefault } from "./HostsUnion.ts"
import { printHosts, printOptions } from "./HostTables.ts"

/**
 * The hosts that containerd asks for a tag. `mirror`: the mirror, then upstream. `upstream-first`: upstream, and the mirror if
 * upstream does not answer. `never`: upstream only. For a digest containerd always asks the mirror first.
 */
export type TagResolution = "mirror" | "upstream-first" | "never"

/** The mirror as hosts of a file. */
export interface Mirror {
  /** URLs without a slash at the end, `http://127.0.0.1:5000`, in the order in which they are asked. */
  readonly targets: ReadonlyArray<string>
  /** Mirrors that are asked after those, and are not of this cluster: they get no credentials. */
  readonly additional: ReadonlyArray<string>
  readonly tagResolution: TagResolution
  /** Value of an `Authorization` header for the targets. */
  readonly authorization: Option.Option<string>
}

/** The registry that a file is for. */
export interface Upstream {
  /** Written as `server` if the file has none. Without it containerd finds the registry in its own way. */
  readonly server: Option.Option<string>
  /** The registry itself as a host; none if the file is for several registries. */
  readonly self: Option.Option<HostsReading.Host>
  /** Hosts of the registry itself, as opposed to its mirrors: their tables are never suspended. */
  readonly hosts: ReadonlyArray<string>
  /** Certificates that containerd finds by their names when there is no file. */
  readonly certificates: {
    readonly all: TomlTable
    /** Those that cannot break pulls of a version that did not use them so far. */
    readonly loadable: TomlTable
  }
}

/** The mirror to write into a file, and the upstream of that file. */
export interface InstallOptions {
  readonly mirror: Mirror
  readonly upstream: Upstream
  /** Whether containerd still asks the hosts of the file, after the mirror; otherwise they are suspended. */
  readonly prependExisting: boolean
  /** The changes to undo besides the text; `HostsBlocks.restore` returns them. */
  readonly undo: HostsBlocks.Undo
}

/** A file with the mirror in it. */
export interface Installed {
  readonly text: string
  /** URLs of hosts that containerd no longer asks. */
  readonly removed: ReadonlyArray<string>
  /** Why some or all versions of containerd refused the text as it was; empty if all accepted it. */
  readonly refused: ReadonlyArray<string>
}

const hostOf = (url: string) => URL.parse(url.includes("://") ? url : `https://${url}`)?.host ?? url

/** In an outage upstream may drop packets: without a timeout each tag would wait 30 s for it. */
const upstreamDefaults = { capabilities: ["pull", "resolve"], dial_timeout: "5s" }

const mirrorHost = (
  url: string,
  capabilities: ReadonlyArray<string>,
  authorization: Option.Option<string>
): HostsReading.Host => ({
  url,
  options: {
    capabilities: [...capabilities],
    // From containerd 2.1 on. Older versions ignore it, and wait 30 s for a host that drops packets.
    dial_timeout: "200ms",
    ...Option.match(authorization, { onNone: () => ({}), onSome: (value) => ({ header: { authorization: [value] } }) })
  }
})

/** All mirrors, in order, in a spelling of their own if something stands behind their URLs. */
const mirrorHosts = (
  { additional, authorization, targets }: Mirror,
  capabilities: ReadonlyArray<string>,
  behind = ""
): ReadonlyArray<HostsReading.Host> => [
  ...targets.map((url) => mirrorHost(url + behind, capabilities, authorization)),
  ...additional.map((url) => mirrorHost(url + behind, capabilities, Option.none()))
]

/**
 * The hosts that come last. Measured with containerd 1.6, 1.7 and 2.1: containerd asks the hosts with both capabilities
 * for a tag, and all hosts for manifests and blobs, whatever their capabilities. So with `upstream-first` the mirror
 * comes first, for digests only, then upstream, then the mirror again in another spelling, for tags in an outage.
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
      new HostsBlocks.HostsTomlUnusable({
        reason: "does not name an upstream to ask first, which upstream-first needs"
      })
    )
  }
  const { url } = first.value
  return Result.succeed([
    ...hosts.some((host) => host.url === url)
      ? []
      : [{ url, options: { ...upstreamDefaults, ...first.value.options, ...options } }],
    ...mirrorHosts(mirror, ["pull", "resolve"], "/")
  ])
}

/** The hosts that containerd is to ask, and those that it is not. */
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
      ![...mirror.targets, ...mirror.additional].includes(url.replace(/\/+$/, "")) &&
      (prependExisting || own.has(hostOf(url)))
    const kept = reading.hosts.filter(isKept)
    const capabilities = mirror.tagResolution === "mirror" ? ["pull", "resolve"] : ["pull"]
    const plan: Plan = {
      mirrors: mirrorHosts(mirror, capabilities),
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

/** Adds blocks to the text, whose hosts stay in place or are suspended in place. */
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

/** Writes one block that says everything, followed by the text as comments. */
const replace = (text: string, plan: Plan, undo: ReadonlyArray<string>): string => {
  const options = mergeOptions(plan.options, plan.certificates)
  const hosts = [...plan.mirrors, ...plan.kept, ...plan.last].flatMap((host) =>
    Option.toArray(Option.map(HostsReading.plainUrl(host.url), (url) => ({ ...host, url })))
  )
  const server = Option.flatMap(plan.server, HostsReading.plainUrl)
  return HostsBlocks.addBlock("", undo, [...rootLines(server, options), ...printHosts(hosts)])
    + HostsBlocks.suspend(text)
}

/** Whether all versions of containerd, when they read the text, ask the hosts of the plan. */
const isRead = (text: string, { kept, last, mirrors, server }: Plan, { self }: Upstream): boolean => {
  const urls = [...mirrors, ...kept, ...last].map(({ url }) => url)
  return withoutDefault(HostsReading.read(text).ways, self).every((way) =>
    Option.isSome(way) && isDeepStrictEqual([way.value.hosts.map(({ url }) => url), way.value.server], [urls, server])
  )
}

/** Puts the mirror into a text that has none of our blocks. It is empty if there is no file. */
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
