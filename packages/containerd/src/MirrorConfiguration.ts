/**
 * Makes containerd ask the mirror first, and undoes it: one `hosts.toml` a registry, in the directory that containerd's
 * `config_path` names. containerd reads it anew on each pull, so that nothing has to be restarted.
 *
 * All that has to be undone is told by the files themselves (`HostsToml`), and each is replaced as a whole: a run that
 * was killed is completed by the next, and runs at the same time leave what the last of them wrote.
 */
import { Data, Effect, Option, Redacted, Result } from "effect"
import { join } from "node:path"
import { setTimeout } from "node:timers/promises"
import * as HostsToml from "./HostsToml.ts"
import * as AtomicFile from "./internal/hosts/AtomicFile.ts"
import * as Certificates from "./internal/hosts/Certificates.ts"
import * as ConfigPath from "./internal/hosts/ConfigPath.ts"
import * as RegistryDirectory from "./internal/hosts/RegistryDirectory.ts"
import * as SpegelBackup from "./internal/hosts/SpegelBackup.ts"

/** The configuration was not written or removed, or not all of it; `path` says how far it came. */
export class ConfigurationFailed extends Data.TaggedError("ConfigurationFailed")<{
  readonly path: string
  readonly cause: unknown
}> {
  override get message() {
    return `${this.path}: ${reasonOf(this.cause)}`
  }
}

/** What became of the file of one directory. */
export interface Change {
  readonly path: string
  /** `removed`: the mirror was taken out of a file that is not to have it any more. */
  readonly kind: "wrote" | "unchanged" | "removed"
  /** URLs of hosts that stood in it and are not asked any more, until `remove`. */
  readonly removedHosts: ReadonlyArray<string>
  /** Why some or all versions of containerd did not take what stood in it; empty where all did. */
  readonly refused: ReadonlyArray<string>
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
/** Of a file to change. containerd reads larger ones, but nobody writes them. */
const maxSize = 1024 * 1024

const reasonOf = (cause: unknown): string =>
  AtomicFile.hasCode(cause, "EPERM", "EACCES")
    ? `${String(cause)} (root may; for a file of another owner it needs CAP_CHOWN and CAP_DAC_OVERRIDE)`
    : cause instanceof Error
    ? "reason" in cause && typeof cause.reason === "string" ? cause.reason : cause.message
    : String(cause)

/** Another run may move a directory away and back between two looks at it: then it is gone, there, or of another kind. */
const mayPass = ({ cause }: ConfigurationFailed) =>
  AtomicFile.hasCode(cause, "ENOENT", "EEXIST", "ENOTEMPTY", "EISDIR", "ENOTDIR")
/** The other run needs a moment on a busy machine. */
const moment = Effect.promise(() => setTimeout(5))

/** Runs a change again that another run, at the same time, took the ground from. */
const change = <A>(path: string, run: () => Promise<A>): Effect.Effect<A, ConfigurationFailed> =>
  Effect.tryPromise({ try: run, catch: (cause) => new ConfigurationFailed({ path, cause }) }).pipe(
    Effect.tapError((error) => mayPass(error) ? moment : Effect.void),
    Effect.retry({ times: 20, while: mayPass })
  )

/** What a file was before we changed it, if we did. */
const restored = ({ bytes }: AtomicFile.File) => Result.getOrThrow(HostsToml.restore(bytes.toString("latin1")))

/** The file with what it was before we changed it, if we did. */
const before = async (directory: string) => {
  const path = join(directory, fileName)
  const file = await AtomicFile.read(path, maxSize)
  if (file !== undefined) {
    const text = file.bytes.toString("latin1")
    const unchanged = { text, undo: { made: Option.none(), mode: Option.none<number>() } }
    return { file, ...Option.getOrElse(restored(file), () => unchanged) }
  }
  if (await AtomicFile.isLink(path)) {
    throw new Error("is a symbolic link to nothing: remove it, or mount what it names")
  }
  const made = await AtomicFile.isThere(directory) ? "file" as const : "directory" as const
  return { file, text: "", undo: { made: Option.some(made), mode: Option.none<number>() } }
}

/** Puts the mirror into the file of one registry. */
const configure = async (
  directory: string,
  registry: RegistryDirectory.RegistryDirectory,
  options: { readonly mirror: HostsToml.Mirror; readonly prependExisting: boolean }
): Promise<Change> => {
  const path = join(directory, fileName)
  const { file, text, undo } = await before(directory)
  const found = file === undefined || Option.isSome(undo.made) ? 0o644 : file.stats.mode & 0o7777
  const original = Option.getOrElse(undo.mode, () => found)
  // With a password in it the file is for root alone, as containerd is.
  const mode = Option.isSome(options.mirror.authorization) ? original & 0o600 : original
  // What a link names may be there for other registries too, and cannot name the server of one.
  const isShared = await AtomicFile.isLink(directory) || await AtomicFile.isLink(path)
  const installed = Result.getOrThrow(HostsToml.install(text, {
    ...options,
    upstream: {
      server: isShared ? Option.none() : registry.server,
      self: isShared ? Option.none() : registry.self,
      hosts: registry.hosts,
      certificates: await Certificates.find(directory)
    },
    undo: {
      made: undo.made,
      mode: Option.isNone(undo.made) && mode !== original ? Option.some(original) : Option.none()
    }
  }))
  const bytes = Buffer.from(installed.text, "latin1")
  const change = { path, removedHosts: installed.removed, refused: installed.refused }
  if (file?.bytes.equals(bytes) === true && (file.stats.mode & 0o7777) === mode) return { ...change, kind: "unchanged" }
  await (file === undefined && Option.getOrUndefined(undo.made) === "directory"
    ? AtomicFile.makeDirectory(directory, (made) => AtomicFile.writeNew(join(made, fileName), bytes, mode))
    : AtomicFile.write(path, bytes, mode, file?.stats))
  return { ...change, kind: "wrote" }
}

/** None where there is something else that containerd cannot read, and that we did not write. */
const readWritten = async (path: string) => {
  try {
    return await AtomicFile.read(path)
  } catch (cause) {
    if (cause instanceof AtomicFile.NoFile) return undefined
    throw cause
  }
}

/** Takes the mirror out of the file of one registry; tells whether it was in it. */
const restore = async (directory: string): Promise<boolean> => {
  const path = join(directory, fileName)
  const file = await readWritten(path)
  const original = file === undefined ? Option.none() : restored(file)
  if (file === undefined || Option.isNone(original)) return false
  const { text, undo } = original.value
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

/** Takes the mirror out of all directories but those named; gives the paths of the files, and what failed. */
const restoreAll = Effect.fnUntraced(function*(configPath: string, except: ReadonlySet<string>) {
  const names = yield* change(configPath, () => AtomicFile.directories(configPath))
  const [paths, failures] = yield* Effect.partition(names.filter((name) => !except.has(name)), (name) => {
    const path = join(configPath, name, fileName)
    return Effect.map(change(path, () => restore(join(configPath, name))), (isChanged) => isChanged ? [path] : [])
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

/**
 * Writes the configuration; again and again with the same result. A directory that cannot be configured is a warning and
 * stops no other; it fails where that is so of all.
 */
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
  const registries = yield* directoriesOf(options.mirroredRegistries, names)
  const left = yield* restoreAll(configPath, new Set(registries.map(({ name }) => name)))
  yield* Effect.forEach(left.failures, ({ message }) => Effect.logWarning(`not looked at: ${message}`))
  const [changes, failures] = yield* Effect.partition(registries, (registry) => {
    const directory = join(configPath, registry.name)
    return change(join(directory, fileName), () => configure(directory, registry, { mirror, prependExisting }))
  })
  const [first] = failures
  if (first !== undefined && changes.length === 0) return yield* first
  // These registries are pulled from as before.
  yield* Effect.forEach(failures, ({ message }) => Effect.logWarning(`not mirrored: ${message}`))
  const removed = left.paths.map((path): Change => ({ path, kind: "removed", removedHosts: [], refused: [] }))
  return [...removed, ...changes]
})

/**
 * Restores what was there before `write`; again and again with the same result. Gives the paths of the files. Fails after
 * the others where one cannot be restored.
 */
export const remove = Effect.fn("MirrorConfiguration.remove")(function*(configPath: string) {
  yield* prepare(configPath)
  const { failures: [first, ...others], paths } = yield* restoreAll(configPath, new Set())
  yield* Effect.forEach(others, ({ message }) => Effect.logError(message))
  if (first !== undefined) return yield* first
  yield* change(configPath, () => ConfigPath.remove(configPath))
  return paths
})
