/**
 * The `hosts.toml` that applies to a registry, as the containerd of this node reads it. containerd looks into the directory
 * of the registry, then into `_default`; it uses the first that exists, whatever is in it.
 */
import { Data, Effect, Option, Result } from "effect"
import { join } from "node:path"
import * as AtomicFile from "./internal/hosts/AtomicFile.ts"
import { fileName } from "./internal/hosts/HostsFile.ts"
import * as HostsReading from "./internal/hosts/HostsReading.ts"
import * as RegistryDirectory from "./internal/hosts/RegistryDirectory.ts"

/** A host that containerd asks before the registry itself. */
export interface AskedHost {
  readonly url: string
  /** Empty for all. */
  readonly capabilities: ReadonlyArray<string>
  /** The `Authorization` that containerd sends to it; a secret. */
  readonly authorization: Option.Option<string>
}

/** What containerd finds for a registry. `directory` is the one that it uses. */
export type AppliedHosts = Data.TaggedEnum<{
  /** The config path does not exist. */
  NoConfigPath: {}
  /** No directory for the registry, and no `_default`. */
  NoDirectory: {}
  /** The directory has no file. It hides `_default`. */
  NoFile: { readonly directory: string }
  /** containerd refuses the file, for these reasons, and goes on as if there were none. */
  Refused: { readonly path: string; readonly reasons: ReadonlyArray<string> }
  /** The hosts in the order in which containerd asks them. `doubts` say what other versions read differently. */
  Hosts: { readonly path: string; readonly hosts: ReadonlyArray<AskedHost>; readonly doubts: ReadonlyArray<string> }
}>
export const AppliedHosts = Data.taggedEnum<AppliedHosts>()

/** The files cannot be read from here; `isForbidden` means that this user lacks the permission. */
export class HostsUnreadable extends Data.TaggedError("HostsUnreadable")<{
  readonly path: string
  readonly reason: string
  readonly isForbidden: boolean
}> {
  override get message() {
    return `${this.path}: ${this.reason}`
  }
}

/** In bytes; nobody writes larger files. */
const maxSize = 1024 * 1024

const attempt = <A>(path: string, run: () => Promise<A>) =>
  Effect.tryPromise({
    try: run,
    catch: (cause) =>
      new HostsUnreadable({
        path,
        reason: cause instanceof Error ? cause.message : String(cause),
        isForbidden: AtomicFile.hasCode(cause, "EACCES", "EPERM")
      })
  })

const stringsOf = (value: unknown): ReadonlyArray<string> =>
  Array.isArray(value) ? value.filter((entry) => typeof entry === "string") : []

const askedHost = ({ options, url }: HostsReading.Host): AskedHost => {
  const header = Object.entries(Object(options["header"])).find(([name]) => name.toLowerCase() === "authorization")
  return {
    url,
    capabilities: stringsOf(options["capabilities"]),
    authorization: Option.fromUndefinedOr(stringsOf(header?.[1])[0])
  }
}

/** The names of the registries that have a directory. Fails with `HostsUnreadable`. */
export const registries = Effect.fn("AppliedHosts.registries")(function*(configPath: string) {
  const names = yield* attempt(configPath, () => AtomicFile.directories(configPath))
  return RegistryDirectory.ofAll(names).flatMap(({ hosts: [host] }) => host ?? [])
})

/** What the containerd of this version (`1.6.20~ds1`) finds for `registry`, a host. Fails with `HostsUnreadable`. */
export const find = Effect.fn("AppliedHosts.find")(function*(
  { configPath, containerd, registry }: {
    readonly configPath: string
    readonly containerd: string
    readonly registry: string
  }
): Effect.fn.Return<AppliedHosts, HostsUnreadable> {
  if (!(yield* attempt(configPath, () => AtomicFile.isThere(configPath)))) return AppliedHosts.NoConfigPath()
  const names = yield* attempt(configPath, () => AtomicFile.directories(configPath))
  const own = Result.match(RegistryDirectory.ofRegistry(registry, names), {
    onFailure: () => registry,
    onSuccess: ({ name }) => name
  })
  const name = [own, "_default"].find((name) => names.includes(name))
  if (name === undefined) return AppliedHosts.NoDirectory()
  const path = join(configPath, name, fileName)
  const file = yield* attempt(path, () => AtomicFile.read(path, maxSize))
  if (file === undefined) return AppliedHosts.NoFile({ directory: join(configPath, name) })
  const text = file.bytes.toString("latin1")
  const readings = HostsReading.read(text)
  const { reasons } = readings
  return Option.match(HostsReading.readBy(readings, containerd), {
    onNone: () => AppliedHosts.Refused({ path, reasons }),
    onSome: ({ hosts }) => AppliedHosts.Hosts({ path, hosts: hosts.map(askedHost), doubts: reasons })
  })
})
