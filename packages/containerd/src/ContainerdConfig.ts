/**
 * containerd's `config.toml`, as far as it decides whether containerd reads `hosts.toml` at all (docs/cri/registry.md
 * of containerd). Where the configuration went depends on its version: `plugins.cri` (1),
 * `plugins."io.containerd.grpc.v1.cri"` (2) and `plugins."io.containerd.cri.v1.images"` (3).
 */
import { Data, Effect, Option, Result, Stream } from "effect"
import { glob, readFile, stat } from "node:fs/promises"
import { dirname, isAbsolute, join, resolve } from "node:path"
import { parse as parseToml, type TomlTable, type TomlValue } from "smol-toml"

/** A configuration file could not be read or is no TOML. */
export class ConfigUnreadable extends Data.TaggedError("ConfigUnreadable")<{
  readonly path: string
  readonly reason: string
}> {
  override get message() {
    return `${this.path}: ${this.reason}`
  }
}

/** The registry settings of one plugin. */
export interface RegistrySettings {
  readonly configPath: Option.Option<string>
  /** Whether `registry.mirrors` has entries. */
  readonly inlineMirrors: boolean
  /** Whether a `registry.configs.*.tls` has entries. */
  readonly inlineTls: boolean
}

export interface ContainerdConfig {
  readonly version: number
  readonly disabledPlugins: ReadonlyArray<string>
  /** Settings under the key of containerd 1.x: that of version 1 or 2. */
  readonly old: RegistrySettings
  /** Settings under the key of containerd 2.x. */
  readonly new: RegistrySettings
  /** `use_local_image_pull`, with which containerd 2.1 and later take several directories. */
  readonly localPull: boolean
}

/** Something that keeps containerd from asking the mirror. */
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
}>
export const Finding = Data.taggedEnum<Finding>()

/** What a person can do about a finding. */
export const advice: (finding: Finding) => string = Finding.$match({
  CriDisabled: ({ plugin }) =>
    `remove ${JSON.stringify(plugin)} from disabled_plugins: the kubelet needs the CRI plugin`,
  ConfigPathUnset: ({ key }) => `set config_path under [${key}] to the directory with the mirror's hosts.toml files`,
  KeyIgnored: ({ key, use }) => `this containerd ignores [${key}]: move config_path to [${use}]`,
  ConfigPathIsList: ({ configPath }) =>
    `config_path ${
      JSON.stringify(configPath)
    } names several directories, of which containerd 2.1 and later read none: name one`,
  ConfigPathElsewhere: ({ configPath, expected }) =>
    `config_path is ${configPath}, but the mirror is configured in ${expected}: make them the same`,
  InlineConflict: ({ key }) =>
    `remove the inline mirrors and configs under [${key}]: with config_path beside them the CRI plugin does not load`,
  InlineMirrors: ({ key }) =>
    `replace the inline mirrors under [${key}] by config_path: hosts.toml is not read with them`
})

const oldPlugin = "io.containerd.grpc.v1.cri"
const newPlugin = "io.containerd.cri.v1.images"

const tableOf = (value: TomlValue | undefined): TomlTable =>
  typeof value === "object" && !Array.isArray(value) && !(value instanceof Date) ? value : {}

const settingsOf = (plugin: TomlTable): RegistrySettings => {
  const registry = tableOf(plugin["registry"])
  const configPath = registry["config_path"]
  return {
    configPath: typeof configPath === "string" && configPath !== "" ? Option.some(configPath) : Option.none(),
    inlineMirrors: Object.keys(tableOf(registry["mirrors"])).length > 0,
    inlineTls: Object.values(tableOf(registry["configs"])).some((host) =>
      Object.keys(tableOf(tableOf(host)["tls"])).length > 0
    )
  }
}

const stringsOf = (value: TomlValue | undefined): ReadonlyArray<string> =>
  Array.isArray(value) ? value.filter((entry) => typeof entry === "string") : []

/** What parsed files say together. Of a plugin in several files the last one counts, as a whole. */
const merge = (files: ReadonlyArray<TomlTable>): ContainerdConfig => {
  const version = Number(files[0]?.["version"] ?? 1)
  const plugins: TomlTable = Object.assign({}, ...files.map((file) => tableOf(file["plugins"])))
  const newTable = tableOf(plugins[newPlugin])
  return {
    version,
    disabledPlugins: files.flatMap((file) => stringsOf(file["disabled_plugins"])),
    old: settingsOf(tableOf(plugins[version < 2 ? "cri" : oldPlugin])),
    new: settingsOf(newTable),
    localPull: newTable["use_local_image_pull"] === true
  }
}

/** A configuration without imports. */
export const parse = (text: string): Result.Result<ContainerdConfig, string> =>
  Result.try({ try: () => merge([parseToml(text)]), catch: (cause) => String(cause) })

const noSettings: RegistrySettings = { configPath: Option.none(), inlineMirrors: false, inlineTls: false }

const record = (value: unknown): Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null ? value as Record<string, unknown> : {}

/**
 * What the CRI plugin of containerd 1.x says of itself (`config` in the kubelet's verbose `Status`); none from 2.x, which
 * leaves registries out.
 */
export const ofCriStatus = (json: string): Option.Option<ContainerdConfig> => {
  const parsed = Option.getOrElse(
    Result.getSuccess(Result.try(() => JSON.parse(json) as unknown)),
    () => undefined
  )
  const registry = record(parsed)["registry"]
  if (typeof registry !== "object" || registry === null) return Option.none()
  const { configPath, configs, mirrors } = record(registry)
  return Option.some({
    version: 2,
    disabledPlugins: [],
    old: {
      configPath: typeof configPath === "string" && configPath !== "" ? Option.some(configPath) : Option.none(),
      inlineMirrors: Object.keys(record(mirrors)).length > 0,
      inlineTls: Object.values(record(configs)).some((host) => Object.keys(record(record(host)["tls"])).length > 0)
    },
    new: noSettings,
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

const importsOf = (path: string, table: TomlTable): Effect.Effect<ReadonlyArray<string>, ConfigUnreadable> =>
  Effect.forEach(stringsOf(table["imports"]), (pattern) =>
    Stream.runCollect(Stream.fromAsyncIterable(
      glob(isAbsolute(pattern) ? pattern : join(dirname(path), pattern)),
      (cause) => new ConfigUnreadable({ path, reason: `import ${pattern}: ${String(cause)}` })
    ))).pipe(Effect.map((found) => found.flatMap((paths) => paths.toSorted())))

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

/**
 * What keeps containerd of version `containerd` (as it tells it, `1.6.20~ds1`) from using the hosts.toml files in
 * `configPath`. Nothing found is no proof: only a pull that reaches the mirror is.
 */
export const verify = (
  config: ContainerdConfig,
  options: { readonly containerd: string; readonly configPath: string }
): ReadonlyArray<Finding> => {
  const isTwo = atLeast(options.containerd, 2, 0)
  const oldKey = `plugins.${config.version < 2 ? "cri" : `"${oldPlugin}"`}.registry`
  const newKey = `plugins."${newPlugin}".registry`
  // Measured: 2.1 drops the old key of a version 3 file, 2.3 takes it.
  const readsOld = !isTwo || config.version < 3 || atLeast(options.containerd, 2, 3)
  const [key, settings] = isTwo && (Option.isSome(config.new.configPath) || !readsOld || config.version >= 3 &&
        Option.isNone(config.old.configPath))
    ? [newKey, config.new] as const
    : [oldKey, config.old] as const
  const findings: Array<Finding> = []

  const disabled = config.disabledPlugins.find((plugin) =>
    plugin === "cri" || plugin === oldPlugin || plugin === newPlugin
  )
  if (disabled !== undefined) findings.push(Finding.CriDisabled({ plugin: disabled }))

  if (Option.isNone(settings.configPath)) {
    const [otherKey, other] = key === newKey ? [oldKey, config.old] as const : [newKey, config.new] as const
    if (Option.isSome(other.configPath)) findings.push(Finding.KeyIgnored({ key: otherKey, use: key }))
    else if (settings.inlineMirrors) findings.push(Finding.InlineMirrors({ key }))
    else findings.push(Finding.ConfigPathUnset({ key }))
    return findings
  }

  const configPath = settings.configPath.value
  // 2.x warns of inline TLS and goes on without it.
  if (settings.inlineMirrors || (settings.inlineTls && !isTwo)) findings.push(Finding.InlineConflict({ key }))
  const directories = configPath.split(":").map((directory) => resolve(directory))
  if (directories.length > 1 && atLeast(options.containerd, 2, 1) && !config.localPull) {
    findings.push(Finding.ConfigPathIsList({ configPath }))
  } else if (!directories.includes(resolve(options.configPath))) {
    findings.push(Finding.ConfigPathElsewhere({ configPath, expected: options.configPath }))
  }
  return findings
}
