/**
 * Makes containerd ask the mirror first, and undoes it: one `hosts.toml` a registry, in the directory that containerd's
 * `config_path` names. containerd reads it anew on each pull, so that nothing has to be restarted.
 *
 * All that has to be undone is told by the files themselves (`HostsToml`), and each is replaced as a whole: a run that
 * was killed is completed by the next, and runs at the same time leave what the last of them wrote.
 */
import { Data, Effect, Option, Redacted, Result } from "effect"
import { join } from "node:path"
import * as HostsToml from "./HostsToml.ts"
import * as AtomicFile from "./internal/AtomicFile.ts"
import * as ConfigPath from "./internal/ConfigPath.ts"
import * as RegistryDirectory from "./internal/RegistryDirectory.ts"
import * as SpegelBackup from "./internal/SpegelBackup.ts"

/** The configuration was not written or removed, or not all of it; `path` says how far it came. */
export class ConfigurationFailed extends Data.TaggedError("ConfigurationFailed")<{
  readonly path: string
  readonly cause: unknown
}> {
  override get message() {
    return `${this.path}: ${reasonOf(this.cause)}`
  }
}

export interface MirrorConfigurationOptions {
  /** The directory that containerd's `config_path` names. */
  readonly configPath: string
  /** Hosts or URLs of registries to mirror; empty means every registry: `_default`, and those that have a directory. */
  readonly mirroredRegistries: ReadonlyArray<string>
  /** URLs of the mirrors, the first to ask in front. */
  readonly mirrorTargets: ReadonlyArray<string>
  readonly tagResolution: HostsToml.TagResolution
  /**
   * What to do where a registry has mirrors already: true puts this one in front of them; false suspends them until
   * `remove`.
   */
  readonly prependExisting: boolean
  readonly basicAuth: Option.Option<{ readonly username: string; readonly password: Redacted.Redacted }>
}

const fileName = "hosts.toml"

const reasonOf = (cause: unknown): string =>
  AtomicFile.hasCode(cause, "EPERM", "EACCES")
    ? `${String(cause)} (root may; for a file of another owner it needs CAP_CHOWN and CAP_DAC_OVERRIDE)`
    : cause instanceof Error
    ? "reason" in cause && typeof cause.reason === "string" ? cause.reason : cause.message
    : String(cause)

/** Runs a change again that another run, at the same time, took the ground from. */
const change = <A>(path: string, run: () => Promise<A>): Effect.Effect<A, ConfigurationFailed> =>
  Effect.tryPromise({ try: run, catch: (cause) => new ConfigurationFailed({ path, cause }) }).pipe(
    Effect.retry({ times: 10, while: ({ cause }) => AtomicFile.hasCode(cause, "ENOENT", "EEXIST", "ENOTEMPTY") })
  )

/** What a file was before we changed it, if we did. */
const restored = ({ bytes }: AtomicFile.File) => Result.getOrThrow(HostsToml.restore(bytes.toString("latin1")))

/** Puts the mirror into the file of one registry. */
const configure = async (
  directory: string,
  registry: RegistryDirectory.RegistryDirectory,
  options: { readonly mirror: HostsToml.Mirror; readonly prependExisting: boolean }
): Promise<void> => {
  const path = join(directory, fileName)
  const file = await AtomicFile.read(path)
  if (file === undefined && await AtomicFile.isLink(path)) {
    throw new Error("is a symbolic link to nothing: remove it, or mount what it names")
  }
  const isThere = await AtomicFile.isThere(directory)
  const names = await AtomicFile.list(directory)
  const before = file === undefined
    ? { text: "", undo: { made: Option.some(isThere ? "file" as const : "directory" as const), mode: Option.none() } }
    : Option.getOrElse(restored(file), () => ({
      text: file.bytes.toString("latin1"),
      undo: { made: Option.none(), mode: Option.none<number>() }
    }))

  const found = file === undefined || Option.isSome(before.undo.made) ? 0o644 : file.stats.mode & 0o7777
  const original = Option.getOrElse(before.undo.mode, () => found)
  // With a password in it the file is for root alone, as containerd is.
  const mode = Option.isSome(options.mirror.authorization) ? original & 0o600 : original
  // What a link names may be there for other registries too, and cannot name the server of one.
  const isShared = await AtomicFile.isLink(directory) || await AtomicFile.isLink(path)
  const text = Result.getOrThrow(HostsToml.install(before.text, {
    ...options,
    upstream: {
      url: isShared ? Option.none() : registry.url,
      hosts: registry.hosts,
      options: RegistryDirectory.certificates(names)
    },
    undo: {
      made: before.undo.made,
      mode: Option.isNone(before.undo.made) && mode !== original ? Option.some(original) : Option.none()
    }
  }))
  const bytes = Buffer.from(text, "latin1")
  if (!isThere) {
    return AtomicFile.makeDirectory(directory, (made) => AtomicFile.writeNew(join(made, fileName), bytes, mode))
  }
  if (file?.bytes.equals(bytes) === true && (file.stats.mode & 0o7777) === mode) return
  return AtomicFile.write(path, bytes, mode, file?.stats)
}

/** Takes the mirror out of the file of one registry; tells whether it was in it. */
const restore = async (directory: string): Promise<boolean> => {
  const path = join(directory, fileName)
  const file = await AtomicFile.read(path)
  const before = file === undefined ? Option.none() : restored(file)
  if (file === undefined || Option.isNone(before)) return false
  const { text, undo } = before.value
  if (Option.isNone(undo.made) || text.trim() !== "") {
    const mode = Option.getOrElse(undo.mode, () => file.stats.mode & 0o7777)
    await AtomicFile.write(path, Buffer.from(text, "latin1"), mode, file.stats)
    return true
  }
  const isAlone = (await AtomicFile.list(directory)).length === 1
  await AtomicFile.remove(undo.made.value === "directory" && isAlone ? directory : path)
  return true
}

/** Removes what killed runs left, and what Go Spegel did. */
const prepare = Effect.fnUntraced(function*(configPath: string) {
  yield* change(configPath, () => ConfigPath.sweep(configPath))
  if (yield* change(configPath, () => SpegelBackup.restore(configPath))) {
    yield* Effect.logInfo("restored the configuration that Go Spegel had moved to _backup")
  }
})

/** Does something for each, whatever becomes of the others; then fails with the first failure, and logs the others. */
const forEach = Effect.fnUntraced(function*<A, B>(
  all: ReadonlyArray<A>,
  run: (a: A) => Effect.Effect<B, ConfigurationFailed>
) {
  const [done, [first, ...others]] = yield* Effect.partition(all, run)
  yield* Effect.forEach(others, (error) => Effect.logError(error.message))
  return first === undefined ? done : yield* first
})

/** Takes the mirror out of all directories but those named; gives the paths of the files. */
const restoreAll = Effect.fnUntraced(function*(configPath: string, except: ReadonlySet<string>) {
  const names = yield* change(configPath, () => AtomicFile.directories(configPath))
  const paths = yield* forEach(names.filter((name) => !except.has(name)), (name) => {
    const path = join(configPath, name, fileName)
    return Effect.map(change(path, () => restore(join(configPath, name))), (isChanged) => isChanged ? [path] : [])
  })
  return paths.flat()
})

/** Writes the configuration; again and again with the same result. Gives the paths of the files. */
export const write = Effect.fn("MirrorConfiguration.write")(function*(options: MirrorConfigurationOptions) {
  const { basicAuth, configPath, mirrorTargets, prependExisting, tagResolution } = options
  const mirror: HostsToml.Mirror = {
    targets: [...new Set(mirrorTargets.map((url) => url.replace(/\/+$/, "")))],
    tagResolution,
    authorization: Option.map(
      basicAuth,
      ({ password, username }) => `Basic ${Buffer.from(`${username}:${Redacted.value(password)}`).toString("base64")}`
    )
  }
  yield* prepare(configPath)
  yield* change(configPath, () => ConfigPath.make(configPath))
  const names = yield* change(configPath, () => AtomicFile.directories(configPath))
  const registries = options.mirroredRegistries.length === 0
    ? RegistryDirectory.ofAll(names)
    : yield* Effect.forEach(
      options.mirroredRegistries,
      (registry) => Effect.fromResult(RegistryDirectory.ofRegistry(registry, names))
    )
  yield* restoreAll(configPath, new Set(registries.map(({ name }) => name)))
  const paths = yield* forEach(registries, (registry) => {
    const directory = join(configPath, registry.name)
    const path = join(directory, fileName)
    return change(path, () => configure(directory, registry, { mirror, prependExisting })).pipe(
      Effect.as([path]),
      // A registry that nobody named is pulled from as before.
      Effect.catchIf(
        () => registry.isFound,
        (error) => Effect.as(Effect.logWarning(`not mirrored: ${error.message}`), [])
      )
    )
  })
  return paths.flat()
})

/** Restores what was there before `write`; again and again with the same result. Gives the paths of the files. */
export const remove = Effect.fn("MirrorConfiguration.remove")(function*(configPath: string) {
  yield* prepare(configPath)
  const paths = yield* restoreAll(configPath, new Set())
  yield* change(configPath, () => ConfigPath.remove(configPath))
  return paths
})
