/**
 * Makes containerd ask the mirror first, and undoes it: one `hosts.toml` a registry, in the directory that containerd's
 * `config_path` names. containerd reads it anew on each pull, so that nothing has to be restarted.
 *
 * All that has to be undone is told by the files themselves (`HostsToml`), and each is replaced as a whole: a run that
 * was killed is completed by the next, and runs at the same time leave what the last of them wrote.
 */
import { looksLikeRegistry } from "@spegel-ts/oci/Grammar"
import { registryHost } from "@spegel-ts/oci/RegistryFilter"
import { Data, Effect, Option, Redacted, Result } from "effect"
import { mkdir, rm } from "node:fs/promises"
import { dirname, join, relative, resolve } from "node:path"
import * as HostsToml from "./HostsToml.ts"
import * as AtomicFile from "./internal/AtomicFile.ts"
import * as SpegelBackup from "./internal/SpegelBackup.ts"

/** The configuration was not written or removed, or not all of it; `path` says how far it came. */
export class ConfigurationFailed extends Data.TaggedError("ConfigurationFailed")<{
  readonly path: string
  readonly reason: string
}> {
  override get message() {
    return `${this.path}: ${this.reason}`
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
/** Stands in a config path that was made here; has the number of directories that were made. */
const madeName = ".made-by-spegel"

const reasonOf = (cause: unknown): string =>
  AtomicFile.hasCode(cause, "EPERM", "EACCES")
    ? `${String(cause)} (root may; for a file of another owner it needs CAP_CHOWN and CAP_DAC_OVERRIDE)`
    : cause instanceof Error
    ? "reason" in cause && typeof cause.reason === "string" ? cause.reason : cause.message
    : String(cause)

/** Runs a change again that another run, at the same time, took the ground from. */
const change = <A>(path: string, run: () => Promise<A>): Effect.Effect<A, ConfigurationFailed> =>
  Effect.tryPromise({ try: run, catch: (cause) => cause }).pipe(
    Effect.retry({ times: 10, while: (cause) => AtomicFile.hasCode(cause, "ENOENT", "EEXIST", "ENOTEMPTY") }),
    Effect.mapError((cause) => new ConfigurationFailed({ path, reason: reasonOf(cause) }))
  )

/** The registry that a directory is for, as containerd names it: `host`, `host:port` or `host_port_`. */
const registryOf = (directory: string): Option.Option<string> => {
  const host = directory.replace(/^(.+)_([0-9]+)_$/, "$1:$2")
  return looksLikeRegistry(host) ? Option.some(host) : Option.none()
}

/** Spellings of a registry's directory, as containerd looks for them: the first that exists hides the other. */
const directoriesOf = (host: string): ReadonlyArray<string> => {
  const match = /^(.+):([0-9]+)$/.exec(host)
  return match === null ? [host] : [`${match[1]}_${match[2]}_`, host]
}

/** docker.io's API has other names. */
const hostsOf = (host: string) => host === "docker.io" ? [host, "registry-1.docker.io", "index.docker.io"] : [host]

/** Where the registry itself is reached. */
const serverOf = (registry: string, host: string): string =>
  host === "docker.io" ? "https://registry-1.docker.io" : /^https?:\/\//.test(registry) ? registry : `https://${host}`

interface Target {
  readonly directory: string
  readonly url: Option.Option<string>
  readonly hosts: ReadonlyArray<string>
}

/** The directories to write a file in. */
const targetsOf = Effect.fnUntraced(function*(configPath: string, registries: ReadonlyArray<string>) {
  const names = yield* change(configPath, () => AtomicFile.directories(configPath))
  if (registries.length === 0) {
    // A registry's own directory hides `_default`, even where it is empty.
    const own = names.flatMap((directory) =>
      Option.toArray(Option.map(registryOf(directory), (host) => ({ directory, hosts: hostsOf(host) })))
    )
    return [{ directory: "_default", hosts: [] }, ...own].map((target): Target => ({ ...target, url: Option.none() }))
  }
  return yield* Effect.forEach(
    registries,
    (registry) =>
      Effect.fromResult(Result.map(registryHost(registry), (host): Target => {
        const directories = directoriesOf(host)
        return {
          directory: directories.find((directory) => names.includes(directory)) ?? directories[0] ?? host,
          url: Option.some(serverOf(registry.replace(/\/+$/, ""), host)),
          hosts: hostsOf(host)
        }
      }))
  )
})

/** Certificates that containerd takes from a directory by their names, as Docker does, until it has a hosts.toml. */
const certificatesOf = (names: ReadonlyArray<string>) => {
  const ca = names.filter((name) => name.endsWith(".crt"))
  const client = names.filter((name) => name.endsWith(".cert")).flatMap((certificate) => {
    const key = certificate.replace(/cert$/, "key")
    return names.includes(key) ? [[certificate, key]] : []
  })
  return { ...(ca.length === 0 ? {} : { ca }), ...(client.length === 0 ? {} : { client }) }
}

/** What a file was before we changed it, if we did. */
const restored = ({ bytes }: AtomicFile.File) => Result.getOrThrow(HostsToml.restore(bytes.toString("latin1")))

/** Puts the mirror into the file of one registry. */
const configure = async (
  directory: string,
  target: Target,
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
  const text = Result.getOrThrow(HostsToml.install(before.text, {
    ...options,
    upstream: { url: target.url, hosts: target.hosts, options: certificatesOf(names) },
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

/** The topmost directory on the way to `path` that is not there. */
const firstMissing = async (path: string): Promise<string | undefined> => {
  let missing: string | undefined
  for (let at = resolve(path); !await AtomicFile.exists(at); at = dirname(at)) missing = at
  return missing
}

const makeConfigPath = async (configPath: string): Promise<void> => {
  const missing = await firstMissing(configPath)
  if (missing === undefined) return
  const below = relative(missing, resolve(configPath))
  await AtomicFile.makeDirectory(missing, async (made) => {
    await mkdir(join(made, below), { recursive: true })
    const levels = below === "" ? 1 : below.split("/").length + 1
    await AtomicFile.writeNew(join(made, below, madeName), Buffer.from(`${levels}\n`), 0o644)
  })
}

/** Removes the config path where it was made here and nothing else has come into it. */
const removeConfigPath = async (configPath: string): Promise<void> => {
  const path = resolve(configPath)
  const marker = await AtomicFile.read(join(path, madeName))
  if (marker === undefined) return
  if ((await AtomicFile.list(path)).length > 1) return rm(join(path, madeName), { force: true })
  let top = path
  for (let level = 1; level < Number(marker.bytes.toString()); level++) {
    if ((await AtomicFile.list(dirname(top))).length > 1) break
    top = dirname(top)
  }
  try {
    await AtomicFile.remove(top)
  } catch (cause) {
    // A mount point stays where it is.
    if (!AtomicFile.hasCode(cause, "EBUSY")) throw cause
    await rm(join(path, madeName), { force: true })
  }
}

/** Removes what killed runs left, and what Go Spegel did. */
const prepare = Effect.fnUntraced(function*(configPath: string) {
  yield* change(configPath, async () => {
    await AtomicFile.sweep(dirname(await firstMissing(configPath) ?? resolve(configPath)))
    await AtomicFile.sweep(configPath)
    for (const name of await AtomicFile.directories(configPath)) await AtomicFile.sweep(join(configPath, name))
  })
  if (yield* change(configPath, () => SpegelBackup.restore(configPath))) {
    yield* Effect.logInfo("restored the configuration that Go Spegel had moved to _backup")
  }
})

/** Takes the mirror out of all directories but those; gives the paths of the files. */
const restoreAll = Effect.fnUntraced(function*(configPath: string, except: ReadonlySet<string>) {
  const names = yield* change(configPath, () => AtomicFile.directories(configPath))
  const changed = yield* Effect.filter(
    names.filter((name) => !except.has(name)),
    (name) => change(join(configPath, name, fileName), () => restore(join(configPath, name)))
  )
  return changed.map((name) => join(configPath, name, fileName))
})

/** Writes the configuration; again and again with the same result. Gives the paths of the files. */
export const write = Effect.fn("MirrorConfiguration.write")(function*(options: MirrorConfigurationOptions) {
  const { basicAuth, configPath, mirrorTargets, prependExisting, tagResolution } = options
  const mirror: HostsToml.Mirror = {
    targets: mirrorTargets.map((url) => url.replace(/\/+$/, "")),
    tagResolution,
    authorization: Option.map(
      basicAuth,
      ({ password, username }) => `Basic ${Buffer.from(`${username}:${Redacted.value(password)}`).toString("base64")}`
    )
  }
  yield* prepare(configPath)
  yield* change(configPath, () => makeConfigPath(configPath))
  const targets = yield* targetsOf(configPath, options.mirroredRegistries)
  yield* restoreAll(configPath, new Set(targets.map(({ directory }) => directory)))
  return yield* Effect.forEach(targets, (target) => {
    const directory = join(configPath, target.directory)
    const path = join(directory, fileName)
    return Effect.as(change(path, () => configure(directory, target, { mirror, prependExisting })), path)
  })
})

/** Restores what was there before `write`; again and again with the same result. Gives the paths of the files. */
export const remove = Effect.fn("MirrorConfiguration.remove")(function*(configPath: string) {
  yield* prepare(configPath)
  const paths = yield* restoreAll(configPath, new Set())
  yield* change(configPath, () => removeConfigPath(configPath))
  return paths
})
