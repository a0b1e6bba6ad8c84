/**
 * Merges the readings of all versions of containerd into one, if they differ. It asks every host that any of them would
 * ask, so a pull that worked with one version works with all.
 */
import { Option } from "effect"
import { isDeepStrictEqual } from "node:util"
import type { TomlTable } from "smol-toml"
import type { Host, Reading } from "./HostsReading.ts"
import { respelled } from "./HostTables.ts"

type Ways = ReadonlyArray<Option.Option<Reading>>

/** The reading of a file that containerd refuses. */
const nothing: Reading = { hosts: [], server: Option.none(), options: {} }

const readingsOf = (ways: Ways): ReadonlyArray<Reading> => ways.map(Option.getOrElse(() => nothing))

export const areAlike = (ways: Ways): boolean => {
  const [first, ...others] = readingsOf(ways)
  return others.every((reading) => isDeepStrictEqual(reading, first))
}

/** Drops a server that containerd would ask anyway. */
export const withoutDefault = (ways: Ways, registry: Option.Option<Host>): Ways =>
  ways.map(
    Option.map((reading) =>
      isDeepStrictEqual(Option.map(reading.server, (url) => ({ url, options: reading.options })), registry)
        ? { ...reading, server: Option.none() }
        : reading
    )
  )

/** Merges options: lists are joined, other values come from the first. */
export const mergeOptions = (one: TomlTable, other: TomlTable): TomlTable => {
  const merged: TomlTable = { ...other, ...one }
  for (const name of ["ca", "client"]) {
    const lists = [one[name], other[name]].flatMap((list) => Array.isArray(list) ? list : [])
    if (name in merged) merged[name] = [...new Map(lists.map((entry) => [JSON.stringify(entry), entry])).values()]
  }
  return merged
}

/** No capabilities means all of them. A capability that only new versions know would make others refuse the file. */
const capabilitiesOf = (options: ReadonlyArray<TomlTable>): TomlTable => {
  const lists = options.map(({ capabilities }) => Array.isArray(capabilities) ? capabilities : [])
  if (lists.some((list) => list.length === 0)) return {}
  const known = [...new Set(lists.flat())].filter((name) => name !== "referrers")
  return { capabilities: known.length === 0 ? ["push"] : known }
}

/** The hosts in their order, each once. A host whose path is read in two ways appears in two spellings. */
const mergeHosts = (hosts: ReadonlyArray<Host>): ReadonlyArray<Host> => {
  const groups = Map.groupBy(hosts, ({ options, url }) => `${options["override_path"] === true} ${url}`)
  const merged: Array<Host> = []
  const listed = new Set<string>()
  for (const group of groups.values()) {
    const all = group.map(({ options }) => options)
    const { capabilities: _, ...others } = all.reduce(mergeOptions)
    const options = { ...capabilitiesOf(all), ...others }
    for (const { url } of group.slice(0, 1)) {
      merged.push({ url: listed.has(url) ? respelled({ url, options }) : url, options })
      listed.add(url)
    }
  }
  return merged
}

export const union = (ways: Ways): Reading => {
  const readings = readingsOf(ways)
  const roots = readings.map(({ options, server }) => ({ options, server }))
  const [first = nothing] = readings
  const hosts = readings.flatMap(({ hosts }) => hosts)
  if (roots.every((root) => isDeepStrictEqual(root, roots[0]))) return { ...first, hosts: mergeHosts(hosts) }
  // containerd asks the registry itself last, so servers become hosts before it.
  const servers = roots.flatMap(({ options, server }) =>
    Option.toArray(Option.map(server, (url) => ({ url, options })))
  )
  return {
    hosts: mergeHosts([...hosts, ...servers]),
    server: Option.none(),
    options: roots.flatMap(({ options, server }) => Option.isNone(server) ? [options] : []).reduce(mergeOptions, {})
  }
}
