/**
 * Finds settings that keep containerd from using the mirror. Versions of containerd look under different keys and
 * refuse different things.
 */
import { Data, Option } from "effect"
import { resolve } from "node:path"
import { type ContainerdConfig, newPlugin, oldPlugin } from "./ContainerdConfig.ts"

/** A setting that keeps containerd from asking the mirror, or from having layers for peers. */
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

/** Tells a person what is wrong and what to do about it. */
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

/** Whether a version of containerd, as it reports it (`1.6.20~ds1`), is `major.minor` or later. */
export const atLeast = (version: string, major: number, minor: number): boolean => {
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

/** The settings that this version of containerd uses; those of layers are under another key than those of registries. */
export const used = (config: ContainerdConfig, containerd: string) => ({
  registry: keysOf(config, containerd).used.settings,
  layers: atLeast(containerd, 2, 0) ? config.new : config.old
})

const discarding = (config: ContainerdConfig, containerd: string): ReadonlyArray<Finding> => {
  // Measured: unlike config_path this is not taken from the old key by 2.x.
  const [settings, key] = atLeast(containerd, 2, 0)
    ? [config.new, newKey] as const
    : [config.old, `${oldKey(config)}.containerd`] as const
  return settings.discardsLayers ? [Finding.LayersDiscarded({ key })] : []
}

const disabling = ({ disabledPlugins }: ContainerdConfig): ReadonlyArray<Finding> =>
  disabledPlugins.filter((plugin) => ["cri", oldPlugin, newPlugin].includes(plugin)).slice(0, 1).map((plugin) =>
    Finding.CriDisabled({ plugin })
  )

/** The finding when no config path is set. */
const pathMissing = ({ other, used: { key, settings } }: ReturnType<typeof keysOf>): Finding => {
  if (Option.isSome(other.settings.configPath)) return Finding.KeyIgnored({ key: other.key, use: key })
  return settings.inlineMirrors ? Finding.InlineMirrors({ key }) : Finding.ConfigPathUnset({ key })
}

/** The findings when a config path is set: containerd has to read it, and it has to be the expected one. */
const pathWrong = (
  configPath: string,
  expected: string,
  versions: { readonly containerd: string; readonly localPull: boolean }
): ReadonlyArray<Finding> => {
  const directories = configPath.split(":").map((directory) => resolve(directory))
  const isList = directories.length > 1 && !versions.localPull
  if (isList && atLeast(versions.containerd, 2, 1)) return [Finding.ConfigPathIsList({ configPath })]
  return [
    ...isList ? [Finding.UpgradeWillIgnoreConfigPath({ configPath })] : [],
    ...directories.includes(resolve(expected)) ? [] : [Finding.ConfigPathElsewhere({ configPath, expected })]
  ]
}

/**
 * Finds what keeps a containerd from using the hosts.toml files in `configPath`, or from having layers for peers.
 * `containerd` is its version as it reports it (`1.6.20~ds1`). Finding nothing proves nothing: only a pull that reaches
 * the mirror does.
 */
export const find = (
  config: ContainerdConfig,
  { configPath: expected, containerd }: { readonly containerd: string; readonly configPath: string }
): ReadonlyArray<Finding> => {
  const keys = keysOf(config, containerd)
  const { key, settings } = keys.used
  // 2.x warns of inline TLS and goes on without it.
  const isConflict = settings.inlineMirrors || (settings.inlineTls && !atLeast(containerd, 2, 0))
  return [
    ...discarding(config, containerd),
    ...disabling(config),
    ...Option.match(settings.configPath, {
      onNone: () => [pathMissing(keys)],
      onSome: (configPath) => [
        ...isConflict ? [Finding.InlineConflict({ key })] : [],
        ...pathWrong(configPath, expected, { containerd, localPull: config.localPull })
      ]
    })
  ]
}
