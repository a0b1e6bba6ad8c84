/**
 * containerd's `config.toml`, as far as it decides whether containerd reads `hosts.toml` at all (docs/cri/registry.md
 * of containerd), and whether it keeps layers. Where the configuration went depends on its version: `plugins.cri` (1),
 * `plugins."io.containerd.grpc.v1.cri"` (2) and `plugins."io.containerd.cri.v1.images"` (3).
 */
import { Data, Effect, Option, Result, Stream } from "effect"
import { existsSync } from "node:fs"
import { glob, readFile, stat } from "node:fs/promises"
import { dirname, resolve } from "node:path"
import { parse as parseToml, type TomlTable } from "smol-toml"

/** A configuration file could not be read or is no TOML. */
export class ConfigUnreadable extends Data.TaggedError("ConfigUnreadable")<{
  readonly path: string
  readonly reason: string
}> {
  override get message() {
    return `${this.path}: ${this.reason}`
  }
}

/** The settings of one plugin. */
export interface PluginSettings {
  readonly configPath: Option.Option<string>
  /** Whether `registry.mirrors` has entries. */
  readonly inlineMirrors: boolean
  /** Whether a `registry.configs.*.tls` has entries. */
  readonly inlineTls: boolean
  /** `discard_unpacked_layers` */
  readonly discardsLayers: boolean
}

export interface ContainerdConfig {
  readonly version: number
  readonly disabledPlugins: ReadonlyArray<string>
  /** Settings under the key of containerd 1.x: that of version 1 or 2. */
  readonly old: PluginSettings
  /** Settings under the key of containerd 2.x. */
  readonly new: PluginSettings
  /** Whether containerd 2.1 and later pull by themselves, not by the transfer service: only then they take several directories. */
  readonly localPull: boolean
}

/** Something that keeps containerd from asking the mirror, or from having layers for peers. */
export type Finding = Data.TaggedEnum<{
  /** No CRI plugin: the kubelet cannot use this containerd. */
  CriDisabled: { readonly plugin: string }
  ConfigPathUnset: { readonly key: string }
  /** Set under a key that this version of containerd does not look at. */
  KeyIgnored: { readonly key: string; readonly use: string }
  /** Several directories: containerd 2.1 and later read none of them. */
  ConfigPathIsList: { readonly configPath: string }
  ConfigPathElsewhere: { readonly configPath: string; readonly expected: string }
  /** Inline `mirrors` or `configs.*.tls` beside `config_path`: the CRI plugin does not load, the node is not ready. */
  InlineConflict: { readonly key: string }
  /** Inline `mirrors` without `config_path`: they are used, and hosts.toml is not. */
  InlineMirrors: { readonly key: string }
  /** Several directories, which this version reads. */
  UpgradeWillIgnoreConfigPath: { readonly configPath: string }
  LayersDiscarded: { readonly key: string }
}>
export const Finding = Data.taggedEnum<Finding>()

const unused = "containerd does not use this mirror"

/** What is wrong, and what a person can do about it. */
export const describe: (finding: Finding) => string = Finding.$match({
  CriDisabled: ({ plugin }) =>
    `${unused}: remove ${JSON.stringify(plugin)} from disabled_plugins: the kubelet needs the CRI plugin`,
  ConfigPathUnset: ({ key }) =>
    `${unused}: set config_path under [${key}] to the directory with the mirror's hosts.toml files`,
  KeyIgnored: ({ key, use }) => `${unused}: this containerd ignores [${key}]: move config_path to [${use}]`,
  ConfigPathIsList: ({ configPath }) =>
    `${unused}: config_path ${
      JSON.stringify(configPath)
    } names several directories, of which containerd 2.1 and later read none: name one`,
  ConfigPathElsewhere: ({ configPath, expected }) =>
    `${unused}: config_path is ${configPath}, but the mirror is configured in ${expected}: make them the same`,
  InlineConflict: ({ key }) =>
    `${unused}: remove the inline mirrors and configs under [${key}]: with config_path beside them the CRI plugin does not load`,
  InlineMirrors: ({ key }) =>
    `${unused}: replace the inline mirrors under [${key}] by config_path: hosts.toml is not read with them`,
  UpgradeWillIgnoreConfigPath: ({ configPath }) =>
    `containerd 2.1 and later would not use this mirror: config_path ${
      JSON.stringify(configPath)
    } names several directories, of which they read none: name one before you upgrade containerd`,
  LayersDiscarded: ({ key }) =>
    "containerd discards layers once they are unpacked: this node cannot give them to peers: set " +
    `discard_unpacked_layers = false under [${key}] and config_path to one directory, and restart containerd`
})

const oldPlugin = "io.containerd.grpc.v1.cri"
const newPlugin = "io.containerd.cri.v1.images"

type Table = Readonly<Record<string, unknown>>

const tableOf = (value: unknown): Table =>
  typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date) ? value as Table : {}

const settingsOf = (registry: Table, configPath: unknown, discardsLayers: unknown): PluginSettings => ({
  configPath: typeof configPath === "string" && configPath !== "" ? Option.some(configPath) : Option.none(),
  inlineMirrors: Object.keys(tableOf(registry["mirrors"])).length > 0,
  inlineTls: Object.values(tableOf(registry["configs"])).some((host) =>
    Object.keys(tableOf(tableOf(host)["tls"])).length > 0
  ),
  discardsLayers: discardsLayers === true
})

const oldSettings = (plugin: Table): PluginSettings => {
  const registry = tableOf(plugin["registry"])
  return settingsOf(registry, registry["config_path"], tableOf(plugin["containerd"])["discard_unpacked_layers"])
}

const newSettings = (plugin: Table): PluginSettings => {
  const registry = tableOf(plugin["registry"])
  return settingsOf(registry, registry["config_path"], plugin["discard_unpacked_layers"])
}

const stringsOf = (value: unknown): ReadonlyArray<string> =>
  Array.isArray(value) ? value.filter((entry) => typeof entry === "string") : []

/** The settings that make containerd 2.1 and later pull by themselves. */
const isLocalPull = (plugin: Table): boolean =>
  plugin["use_local_image_pull"] === true || plugin["discard_unpacked_layers"] === true ||
  plugin["image_pull_with_sync_fs"] === true || plugin["disable_snapshot_annotations"] === false ||
  (plugin["max_concurrent_downloads"] ?? 3) !== 3 ||
  Object.keys(tableOf(tableOf(plugin["registry"])["configs"])).length > 0

/** What parsed files say together. Of a plugin in several files the last one counts, as a whole. */
const merge = (files: ReadonlyArray<TomlTable>): ContainerdConfig => {
  const version = Number(files[0]?.["version"] ?? 1)
  const plugins: Table = Object.assign({}, ...files.map((file) => tableOf(file["plugins"])))
  const oldTable = tableOf(plugins[version < 2 ? "cri" : oldPlugin])
  const newTable = tableOf(plugins[newPlugin])
  return {
    version,
    disabledPlugins: files.flatMap((file) => stringsOf(file["disabled_plugins"])),
    old: oldSettings(oldTable),
    new: newSettings(newTable),
    localPull: isLocalPull(oldTable) || isLocalPull(newTable)
  }
}

/** A configuration without imports. */
export const parse = (text: string): Result.Result<ContainerdConfig, string> =>
  Result.try({ try: () => merge([parseToml(text)]), catch: (cause) => String(cause) })

/**
 * What the CRI plugin of containerd 1.x says of itself (`config` in the kubelet's verbose `Status`); none from 2.x, which
 * leaves images out.
 */
export const ofCriStatus = (json: string): Option.Option<ContainerdConfig> => {
  const parsed = Result.try((): unknown => JSON.parse(json))
  const status = tableOf(Result.getOrElse(parsed, () => undefined))
  if (typeof status["registry"] !== "object" || status["registry"] === null) return Option.none()
  const registry = tableOf(status["registry"])
  return Option.some({
    version: 2,
    disabledPlugins: [],
    old: settingsOf(registry, registry["configPath"], tableOf(status["containerd"])["discardUnpackedLayers"]),
    new: newSettings({}),
    localPull: false
  })
}

const maxFiles = 100
const maxSize = 1024 * 1024

const readTable = (path: string): Effect.Effect<TomlTable, ConfigUnreadable> =>
  Effect.tryPromise({
    try: async () => {
      if ((await stat(path)).size > maxSize) throw new Error(`is larger than ${maxSize} bytes`)
      return parseToml(await readFile(path, "utf8"))
    },
    catch: (cause) => new ConfigUnreadable({ path, reason: cause instanceof Error ? cause.message : String(cause) })
  })

/** A directory elsewhere that is not there may be one that a container does not see. */
const isOutOfReach = (path: string, pattern: string): boolean => {
  const directory = dirname(pattern)
  return !/[*?[{]/.test(directory) && !directory.startsWith(dirname(path)) && !existsSync(directory)
}

const importsOf = (path: string, table: TomlTable): Effect.Effect<ReadonlyArray<string>, ConfigUnreadable> =>
  Effect.forEach(stringsOf(table["imports"]), (name) => {
    const pattern = resolve(dirname(path), name)
    if (isOutOfReach(path, pattern)) {
      return Effect.fail(new ConfigUnreadable({ path, reason: `it imports ${name}, which cannot be seen from here` }))
    }
    return Stream.runCollect(Stream.fromAsyncIterable(
      glob(pattern),
      (cause) => new ConfigUnreadable({ path, reason: `import ${name}: ${String(cause)}` })
    ))
  }).pipe(Effect.map((found) => found.flatMap((paths) => paths.toSorted())))

/** Reads the file at `path` and what it imports. */
export const read = Effect.fn("ContainerdConfig.read")(function*(path: string) {
  const tables = new Map<string, TomlTable>()
  const pending = [resolve(path)]
  for (let next = pending.shift(); next !== undefined; next = pending.shift()) {
    if (tables.has(next)) continue
    if (tables.size >= maxFiles) return yield* new ConfigUnreadable({ path, reason: `imports over ${maxFiles} files` })
    const table = yield* readTable(next)
    tables.set(next, table)
    pending.push(...yield* importsOf(next, table))
  }
  return merge([...tables.values()])
})

const atLeast = (version: string, major: number, minor: number): boolean => {
  const match = /^v?(\d+)\.(\d+)/.exec(version)
  if (match === null) return false
  const [, found, foundMinor] = match.map(Number) as [number, number, number]
  return found > major || (found === major && foundMinor >= minor)
}

const oldKey = ({ version }: ContainerdConfig): string => `plugins.${version < 2 ? "cri" : `"${oldPlugin}"`}`
const newKey = `plugins."${newPlugin}"`

/** The key under which this version looks for registries, and the other one. */
const keysOf = (config: ContainerdConfig, containerd: string) => {
  const isTwo = atLeast(containerd, 2, 0)
  const old = { key: `${oldKey(config)}.registry`, settings: config.old }
  const current = { key: `${newKey}.registry`, settings: config.new }
  // Measured: 2.1 drops the old key of a version 3 file, 2.3 takes it.
  const readsOld = !isTwo || config.version < 3 || atLeast(containerd, 2, 3)
  const isNew = isTwo && (Option.isSome(config.new.configPath) || !readsOld ||
    config.version >= 3 && Option.isNone(config.old.configPath))
  return isNew ? { used: current, other: old } : { used: old, other: current }
}

const discarding = (config: ContainerdConfig, containerd: string): ReadonlyArray<Finding> => {
  // Measured: unlike config_path this is not taken from the old key by 2.x.
  const [settings, key] = atLeast(containerd, 2, 0)
    ? [config.new, newKey] as const
    : [config.old, `${oldKey(config)}.containerd`] as const
  return settings.discardsLayers ? [Finding.LayersDiscarded({ key })] : []
}

/**
 * What keeps containerd of version `containerd` (as it tells it, `1.6.20~ds1`) from using the hosts.toml files in
 * `configPath`, or from having layers for peers. Nothing found is no proof: only a pull that reaches the mirror is.
 */
export const verify = (
  config: ContainerdConfig,
  { configPath: expected, containerd }: { readonly containerd: string; readonly configPath: string }
): ReadonlyArray<Finding> => {
  const { other, used: { key, settings } } = keysOf(config, containerd)
  const findings = [...discarding(config, containerd)]

  const disabled = config.disabledPlugins.find((plugin) =>
    plugin === "cri" || plugin === oldPlugin || plugin === newPlugin
  )
  if (disabled !== undefined) findings.push(Finding.CriDisabled({ plugin: disabled }))

  if (Option.isNone(settings.configPath)) {
    if (Option.isSome(other.settings.configPath)) findings.push(Finding.KeyIgnored({ key: other.key, use: key }))
    else if (settings.inlineMirrors) findings.push(Finding.InlineMirrors({ key }))
    else findings.push(Finding.ConfigPathUnset({ key }))
    return findings
  }

  const configPath = settings.configPath.value
  // 2.x warns of inline TLS and goes on without it.
  if (settings.inlineMirrors || (settings.inlineTls && !atLeast(containerd, 2, 0))) {
    findings.push(Finding.InlineConflict({ key }))
  }
  const directories = configPath.split(":").map((directory) => resolve(directory))
  const isList = directories.length > 1 && !config.localPull
  if (isList && atLeast(containerd, 2, 1)) {
    findings.push(Finding.ConfigPathIsList({ configPath }))
    return findings
  }
  if (isList) findings.push(Finding.UpgradeWillIgnoreConfigPath({ configPath }))
  if (!directories.includes(resolve(expected))) findings.push(Finding.ConfigPathElsewhere({ configPath, expected }))
  return findings
}
