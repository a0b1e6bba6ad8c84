/**
 * Makes containerd ask the mirror first: one `hosts.toml` a registry, in the directory that containerd's `config_path`
 * names. containerd reads it anew on each pull, so that nothing has to be restarted.
 */
import { registryHost } from "@spegel-ts/oci/RegistryFilter"
import { Data, Effect, Option, Redacted, Result } from "effect"
import { randomUUID } from "node:crypto"
import { access, mkdir, readFile, rename, rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import * as HostsToml from "./HostsToml.ts"

/** The configuration was not written, or not all of it; `path` says how far it came. */
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
  /** Hosts or URLs of registries to mirror; empty means every registry (`_default`). */
  readonly mirroredRegistries: ReadonlyArray<string>
  /** URLs of the mirrors, the first to ask in front. */
  readonly mirrorTargets: ReadonlyArray<string>
  readonly resolveTags: boolean
  /**
   * What to do where a registry is configured already: true puts the mirror in front of it; false puts the mirror alone
   * in its place, and keeps the file beside it as `hosts.toml.spegel-backup`.
   */
  readonly prependExisting: boolean
  readonly basicAuth: Option.Option<{ readonly username: string; readonly password: Redacted.Redacted }>
}

const backupName = "hosts.toml.spegel-backup"

const failed = (path: string) => (cause: unknown) =>
  new ConfigurationFailed({ path, reason: cause instanceof Error ? cause.message : String(cause) })

const tryFile = <A>(path: string, run: () => Promise<A>) => Effect.tryPromise({ try: run, catch: failed(path) })

const readIfThere = (path: string): Effect.Effect<Option.Option<string>, ConfigurationFailed> =>
  tryFile(path, async () => {
    try {
      return Option.some(await readFile(path, "utf8"))
    } catch (cause) {
      if (typeof cause === "object" && cause !== null && "code" in cause && cause.code === "ENOENT") {
        return Option.none()
      }
      throw cause
    }
  })

/** containerd may read at any moment, and ignores a file that is cut off. */
const writeAtomically = (path: string, text: string): Effect.Effect<void, ConfigurationFailed> =>
  tryFile(path, async () => {
    const temporary = `${path}.${randomUUID()}`
    try {
      await writeFile(temporary, text, { mode: 0o644 })
      await rename(temporary, path)
    } finally {
      await rm(temporary, { force: true })
    }
  })

/** Where the registry itself is reached; docker.io's API has another name. */
const serverOf = (registry: string, host: string): string =>
  host === "docker.io" ? "https://registry-1.docker.io" : /^https?:\/\//.test(registry) ? registry : `https://${host}`

/** Spellings of a registry's directory, as containerd looks for them: the first that exists hides the other. */
const directoriesOf = (host: string): ReadonlyArray<string> => {
  const match = /^(.+):([0-9]+)$/.exec(host)
  return match === null ? [host] : [`${match[1]}_${match[2]}_`, host]
}

/** The directory in use, or the one to make. */
const directoryOf = (configPath: string, host: string): Effect.Effect<string> => {
  const directories = directoriesOf(host)
  return Effect.findFirst(
    directories,
    (directory) => Effect.promise(() => access(join(configPath, directory)).then(() => true, () => false))
  ).pipe(Effect.map(Option.getOrElse(() => directories[0] ?? host)))
}

/** Writes the configuration; again and again with the same result. */
export const write = Effect.fn("MirrorConfiguration.write")(function*(options: MirrorConfigurationOptions) {
  const { basicAuth, configPath, mirrorTargets, mirroredRegistries, prependExisting, resolveTags } = options
  const authorization = Option.map(
    basicAuth,
    ({ password, username }) => `Basic ${Buffer.from(`${username}:${Redacted.value(password)}`).toString("base64")}`
  )
  const hosts = mirrorTargets.map((url) => ({ url: url.replace(/\/+$/, ""), resolveTags, authorization }))

  const registries = mirroredRegistries.length === 0
    ? [{ directory: "_default", server: Option.none<string>() }]
    : yield* Effect.forEach(mirroredRegistries, (registry) =>
      Effect.fromResult(
        Result.map(registryHost(registry), (host) => ({
          host,
          server: Option.some(serverOf(registry.replace(/\/+$/, ""), host))
        }))
      ).pipe(
        Effect.flatMap(({ host, server }) =>
          Effect.map(directoryOf(configPath, host), (directory) => ({ directory, server }))
        )
      ))

  yield* Effect.forEach(registries, ({ directory, server }) =>
    Effect.gen(function*() {
      const path = join(configPath, directory, "hosts.toml")
      const backup = join(configPath, directory, backupName)
      yield* tryFile(path, () => mkdir(join(configPath, directory), { recursive: true }))
      const existing = yield* readIfThere(path)
      const foreign = Option.filter(Option.map(existing, HostsToml.removeBlock), (text) => text.trim() !== "")
      if (Option.isNone(foreign)) return yield* writeAtomically(path, HostsToml.create(server, hosts))
      if (!prependExisting) {
        yield* writeAtomically(backup, foreign.value)
        return yield* writeAtomically(path, HostsToml.create(server, hosts))
      }
      if (!HostsToml.isValid(foreign.value)) {
        return yield* new ConfigurationFailed({ path, reason: "is no TOML, mend or remove it first" })
      }
      const text = HostsToml.prepend(foreign.value, hosts)
      if (!HostsToml.isValid(text)) {
        return yield* new ConfigurationFailed({
          path,
          reason: `has one of ${mirrorTargets.join(", ")} as a host already, remove it there first`
        })
      }
      yield* writeAtomically(path, text)
    }), { discard: true })
  return registries.map(({ directory }) => join(configPath, directory, "hosts.toml"))
})
