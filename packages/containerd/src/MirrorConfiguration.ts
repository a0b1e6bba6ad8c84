/**
 * Makes containerd ask the mirror first, and undoes it. Each registry has a `hosts.toml` in the directory that
 * containerd's `config_path` names. containerd reads it on every pull, so nothing has to be restarted.
 *
 * The files themselves record how to undo a change (`internal/hosts/HostsToml`), and each file is replaced atomically.
 * The next run completes a run that was killed. When several run at the same time, the last one wins.
 */
import { Data, Effect, Option, Redacted } from "effect"
import { join } from "node:path"
import { setTimeout } from "node:timers/promises"
import * as AtomicFile from "./internal/hosts/AtomicFile.ts"
import * as ConfigPath from "./internal/hosts/ConfigPath.ts"
import * as HostsFile from "./internal/hosts/HostsFile.ts"
import type { Mirror, TagResolution } from "./internal/hosts/HostsToml.ts"
import * as RegistryDirectory from "./internal/hosts/RegistryDirectory.ts"
import * as SpegelBackup from "./internal/hosts/SpegelBackup.ts"

export type { TagResolution }

/**
 * The configuration was not written or not removed, or not all of it. `path` is the file or directory that stood in the
 * way.
 */
export class ConfigurationFailed extends Data.TaggedError("ConfigurationFailed")<{
  readonly path: string
  readonly reason: string
  readonly cause: unknown
}> {
  override get message() {
    return `${this.path}: ${this.reason}`
  }
}

/** A registry's file as `write` found it. */
interface FileReport {
  readonly path: string
  /** URLs of hosts in the file that containerd no longer asks, until `remove`. */
  readonly removedHosts: ReadonlyArray<string>
  /** Why some or all versions of containerd refused the file as it was; empty if all accepted it. */
  readonly refused: ReadonlyArray<string>
}

/** What `write` did to a registry's file. */
export type Change = Data.TaggedEnum<{
  Wrote: FileReport
  /** It already was as wanted. */
  Unchanged: FileReport
  /** The mirror was taken out: this registry is no longer mirrored. */
  Removed: { readonly path: string }
}>
export const Change = Data.taggedEnum<Change>()

/** The mirror to configure, and the registries to configure it for. */
export interface MirrorConfigurationOptions {
  /** The directory that containerd's `config_path` names. */
  readonly configPath: string
  /** Hosts or URLs of registries to mirror; empty means every registry: `_default`, and those that have a directory. */
  readonly mirroredRegistries: ReadonlyArray<string>
  /** URLs of the mirrors, in the order in which containerd asks them. */
  readonly mirrorTargets: ReadonlyArray<string>
  /** URLs of other mirrors that containerd asks after those, such as a pull-through cache. They get neither `basicAuth` nor `token`. */
  readonly additionalMirrorTargets?: ReadonlyArray<string> | undefined
  /** The hosts that containerd asks for a tag. */
  readonly tagResolution: TagResolution
  /**
   * If a registry already has mirrors, true puts this one in front of them; false suspends them until `remove`.
   */
  readonly prependExisting: boolean
  /** Credentials that containerd sends to the mirrors. Files with them can be read by root alone. */
  readonly basicAuth: Option.Option<{ readonly username: string; readonly password: Redacted.Redacted }>
  /** A bearer token that containerd sends to the mirrors in place of `basicAuth`; such files too can be read by root alone. */
  readonly token?: Redacted.Redacted | undefined
}

const reasonOf = (cause: unknown): string => {
  const message = cause instanceof Error ? cause.message : String(cause)
  return AtomicFile.hasCode(cause, "EPERM", "EACCES")
    ? `${message} (root may; for a file of another owner it needs CAP_CHOWN and CAP_DAC_OVERRIDE)`
    : message
}

/** Whether another run at the same time can cause this failure: it made, removed or replaced what this run looks at. */
const mayPass = ({ cause }: ConfigurationFailed) =>
  AtomicFile.hasCode(cause, "ENOENT", "EEXIST", "ENOTEMPTY", "EISDIR", "ENOTDIR")
/** The other run needs a moment on a busy machine. */
const moment = Effect.promise(() => setTimeout(5))

/** Runs a change, and repeats it if another run at the same time made it fail. */
const change = <A>(path: string, run: () => Promise<A>): Effect.Effect<A, ConfigurationFailed> =>
  Effect.tryPromise({ try: run, catch: (cause) => new ConfigurationFailed({ path, reason: reasonOf(cause), cause }) })
    .pipe(
      Effect.tapError((error) => mayPass(error) ? moment : Effect.void),
      Effect.retry({ times: 20, while: mayPass })
    )

/** Removes what killed runs left, and what Go Spegel did. */
const prepare = Effect.fnUntraced(function*(configPath: string) {
  yield* change(configPath, () => ConfigPath.sweep(configPath))
  if (yield* change(configPath, () => SpegelBackup.restore(configPath))) {
    yield* Effect.logInfo("restored the configuration that Go Spegel had moved to _backup")
  }
})

/** Takes the mirror out of all directories except `except`. Returns the paths of the changed files, and the failures. */
const restoreAll = Effect.fnUntraced(function*(configPath: string, except: ReadonlySet<string>) {
  const names = yield* change(configPath, () => AtomicFile.directories(configPath))
  const [paths, failures] = yield* Effect.partition(names.filter((name) => !except.has(name)), (name) => {
    const path = join(configPath, name, HostsFile.fileName)
    return Effect.map(
      change(path, () => HostsFile.restore(join(configPath, name))),
      (isChanged) => isChanged ? [path] : []
    )
  })
  return { failures, paths: paths.flat() }
})

/** The directories to configure, each once. */
const directoriesOf = Effect.fnUntraced(
  function*(mirroredRegistries: ReadonlyArray<string>, names: ReadonlyArray<string>) {
    if (mirroredRegistries.length === 0) return RegistryDirectory.ofAll(names)
    const named = yield* Effect.forEach(
      mirroredRegistries,
      (registry) => Effect.fromResult(RegistryDirectory.ofRegistry(registry, names))
    )
    return [...new Map(named.map((directory) => [directory.name, directory])).values()]
  }
)

/** The `Authorization` header for the mirrors. There is one, so a token takes the place of a password. */
const authorizationOf = ({ basicAuth, token }: MirrorConfigurationOptions): Option.Option<string> =>
  token === undefined
    ? Option.map(
      basicAuth,
      ({ password, username }) => `Basic ${Buffer.from(`${username}:${Redacted.value(password)}`).toString("base64")}`
    )
    : Option.some(`Bearer ${Redacted.value(token)}`)

const mirrorOf = (options: MirrorConfigurationOptions): Mirror => {
  const once = (urls: ReadonlyArray<string>) => [...new Set(urls.map((url) => url.replace(/\/+$/, "")))]
  const targets = once(options.mirrorTargets)
  return {
    targets,
    additional: once(options.additionalMirrorTargets ?? []).filter((url) => !targets.includes(url)),
    tagResolution: options.tagResolution,
    authorization: authorizationOf(options)
  }
}

/**
 * Writes the configuration. Running it again changes nothing. A registry that cannot be configured is logged at WARN
 * and does not stop the others: containerd pulls from it as before. Fails with `ConfigurationFailed` if no registry can
 * be configured or the config path cannot be used, and with `InvalidRegistry` if a registry's name is invalid; then no
 * file was configured.
 */
export const write = Effect.fn("MirrorConfiguration.write")(function*(options: MirrorConfigurationOptions) {
  const { configPath, prependExisting } = options
  const mirror = mirrorOf(options)
  yield* prepare(configPath)
  yield* change(configPath, () => ConfigPath.make(configPath))
  const names = yield* change(configPath, () => AtomicFile.directories(configPath))
  const registries = yield* directoriesOf(options.mirroredRegistries, names)
  const left = yield* restoreAll(configPath, new Set(registries.map(({ name }) => name)))
  yield* Effect.forEach(left.failures, ({ message }) => Effect.logWarning(`not looked at: ${message}`))
  const [changes, failures] = yield* Effect.partition(registries, (registry) => {
    const directory = join(configPath, registry.name)
    const path = join(directory, HostsFile.fileName)
    return change(path, async () => {
      // A removal at the same time may have taken it away.
      await ConfigPath.make(configPath)
      const { isChanged, ...report } = await HostsFile.configure(directory, registry, { mirror, prependExisting })
      return isChanged ? Change.Wrote({ path, ...report }) : Change.Unchanged({ path, ...report })
    })
  })
  const [first] = failures
  if (first !== undefined && changes.length === 0) return yield* first
  yield* Effect.forEach(failures, ({ message }) => Effect.logWarning(`not mirrored: ${message}`))
  return [...left.paths.map((path) => Change.Removed({ path })), ...changes]
})

/**
 * Restores what was there before `write`, and gives the paths of the files that were changed. Running it again changes
 * nothing. If a file cannot be restored, it restores the others and then fails with `ConfigurationFailed`.
 */
export const remove = Effect.fn("MirrorConfiguration.remove")(function*(configPath: string) {
  yield* prepare(configPath)
  const { failures: [first, ...others], paths } = yield* restoreAll(configPath, new Set())
  yield* Effect.forEach(others, ({ message }) => Effect.logError(message))
  if (first !== undefined) return yield* first
  yield* change(configPath, () => ConfigPath.remove(configPath))
  return paths
})
