/**
 * containerd's `config.toml`: the parts that decide whether containerd reads `hosts.toml` at all (docs/cri/registry.md
 * of containerd) and whether it keeps layers. `ConfigFindings` judges them. The table depends on the version of the
 * file: `plugins.cri` (1), `plugins."io.containerd.grpc.v1.cri"` (2) or `plugins."io.containerd.cri.v1.images"` (3).
 */
import { Data, Effect, Option, Result, Stream } from "effect"
import { existsSync } from "node:fs"
import { glob, readFile, stat } from "node:fs/promises"
import { dirname, resolve } from "node:path"
import { parse as parseToml, type TomlTable } from "smol-toml"

/** A configuration file could not be read, or is not TOML. */
export class ConfigUnreadable extends Data.TaggedError("ConfigUnreadable")<{
  readonly path: string
  readonly reason: string
}> {
  override get message() {
    return `${this.path}: ${this.reason}`
  }
}

/** The settings of the CRI plugin under one of its keys. */
export interface PluginSettings {
  /** `registry.config_path`: one directory, or several with colons between them. */
  readonly configPath: Option.Option<string>
  /** Whether `registry.mirrors` has entries. */
  readonly inlineMirrors: boolean
  /** Whether a `registry.configs.*.tls` has entries. */
  readonly inlineTls: boolean
  /** `discard_unpacked_layers` */
  readonly discardsLayers: boolean
  /** `snapshotter`; none for containerd's default. */
  readonly snapshotter: Option.Option<string>
}

/** The settings of a containerd that concern registries and layers. */
export interface ContainerdConfig {
  /** Version of the file's format, not of containerd. */
  readonly version: number
  readonly disabledPlugins: ReadonlyArray<string>
  /** Settings under the key of containerd 1.x: that of version 1 or 2. */
  readonly old: PluginSettings
  /** Settings under the key of containerd 2.x. */
  readonly new: PluginSettings
  /** Whether containerd 2.1 and later pull without the transfer service: only then do they take several directories. */
  readonly localPull: boolean
}

/** The plugin of images in containerd 1.x. */
export const oldPlugin = "io.containerd.grpc.v1.cri"
/** The plugin of images in containerd 2.x. */
export const newPlugin = "io.containerd.cri.v1.images"

type Table = Readonly<Record<string, unknown>>

const tableOf = (value: unknown): Table =>
  typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date) ? value as Table : {}

const textOf = (value: unknown): Option.Option<string> =>
  typeof value === "string" && value !== "" ? Option.some(value) : Option.none()

/** `runtime` is the table with the settings of layers. */
const settingsOf = (registry: Table, configPath: unknown, runtime: Table, discardsLayers: unknown): PluginSettings => ({
  configPath: textOf(configPath),
  snapshotter: textOf(runtime["snapshotter"]),
  inlineMirrors: Object.keys(tableOf(registry["mirrors"])).length > 0,
  inlineTls: Object.values(tableOf(registry["configs"])).some((host) =>
    Object.keys(tableOf(tableOf(host)["tls"])).length > 0
  ),
  discardsLayers: discardsLayers === true
})

const oldSettings = (plugin: Table): PluginSettings => {
  const registry = tableOf(plugin["registry"])
  const runtime = tableOf(plugin["containerd"])
  return settingsOf(registry, registry["config_path"], runtime, runtime["discard_unpacked_layers"])
}

const newSettings = (plugin: Table): PluginSettings => {
  const registry = tableOf(plugin["registry"])
  return settingsOf(registry, registry["config_path"], plugin, plugin["discard_unpacked_layers"])
}

const stringsOf = (value: unknown): ReadonlyArray<string> =>
  Array.isArray(value) ? value.filter((entry) => typeof entry === "string") : []

/** The settings that make containerd 2.1 and later pull without the transfer service. */
const isLocalPull = (plugin: Table): boolean =>
  plugin["use_local_image_pull"] === true || plugin["discard_unpacked_layers"] === true ||
  plugin["image_pull_with_sync_fs"] === true || plugin["disable_snapshot_annotations"] === false ||
  (plugin["max_concurrent_downloads"] ?? 3) !== 3 ||
  Object.keys(tableOf(tableOf(plugin["registry"])["configs"])).length > 0

/** Merges parsed files. When several files configure a plugin, the last one replaces the others. */
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

/** Reads the text of a configuration, without what it imports. Fails with the reason when it is not TOML. */
export const parse = (text: string): Result.Result<ContainerdConfig, string> =>
  Result.try({ try: () => merge([parseToml(text)]), catch: (cause) => String(cause) })

/**
 * Reads what the CRI plugin reports about itself (`ContainerdClient.criConfig`). Only containerd 1.x reports its image
 * settings; the report of 2.x yields none.
 */
export const ofCriStatus = (json: string): Option.Option<ContainerdConfig> => {
  const parsed = Result.try((): unknown => JSON.parse(json))
  const status = tableOf(Result.getOrElse(parsed, () => undefined))
  if (typeof status["registry"] !== "object" || status["registry"] === null) return Option.none()
  const registry = tableOf(status["registry"])
  const runtime = tableOf(status["containerd"])
  return Option.some({
    version: 2,
    disabledPlugins: [],
    old: settingsOf(registry, registry["configPath"], runtime, runtime["discardUnpackedLayers"]),
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

/** A missing directory outside of the configuration's own may exist on the node: a container does not see all of it. */
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

/**
 * Reads the file at `path` and what it imports. Fails with `ConfigUnreadable` if a file is missing, not TOML or larger
 * than 1 MiB, or if an import cannot be seen from here: then we cannot tell what containerd does.
 */
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
