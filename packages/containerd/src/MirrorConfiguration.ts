/**
 * Makes containerd ask the mirror first: one `hosts.toml` a registry, in the directory that containerd's `config_path`
 * names. containerd reads it anew on each pull, so that nothing has to be restarted.
 */
import { registryHost } from "@spegel-ts/oci/RegistryFilter"
import { Data, Effect, Option, Redacted, Result } from "effect"
import { randomUUID } from "node:crypto"
import { access, mkdir, readFile, rename, rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { parse as parseToml } from "smol-toml"
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

/** The directory that containerd looks for first, as it writes a host with a port. */
const directoryOf = (host: string): string => {
  const match = /^(.+):([0-9]+)$/.exec(host)
  return match === null ? host : `${match[1]}_${match[2]}_`
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
          // Both spellings are legal; one that is there already is the one in use.
          tryFile(configPath, () => access(join(configPath, host)).then(() => host, () => directoryOf(host))).pipe(
            Effect.map((directory) => ({ directory, server }))
          )
        )
      ))

  yield* Effect.forEach(registries, ({ directory, server }) =>
    Effect.gen(function*() {
      const path = join(configPath, directory, "hosts.toml")
      const backup = join(configPath, directory, backupName)
      yield* tryFile(path, () => mkdir(join(configPath, directory), { recursive: true }))
      const existing = yield* readIfThere(path)
      const foreign = Option.filter(existing, (text) => HostsToml.removeBlock(text).trim() !== "")
      const ours = Option.exists(existing, HostsToml.hasBlock)
      if (Option.isNone(foreign)) return yield* writeAtomically(path, HostsToml.create(server, hosts))
      if (prependExisting) {
        yield* Effect.try({
          try: () => parseToml(foreign.value),
          catch: (cause) =>
            new ConfigurationFailed({ path, reason: `is no TOML, mend or remove it first (${String(cause)})` })
        })
        return yield* writeAtomically(path, HostsToml.prepend(foreign.value, hosts))
      }
      if (!ours) yield* writeAtomically(backup, foreign.value)
      yield* writeAtomically(path, HostsToml.create(server, hosts))
    }), { discard: true })
  return registries.map(({ directory }) => join(configPath, directory, "hosts.toml"))
})
