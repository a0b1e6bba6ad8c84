/** Image references: `[registry/]repository[:tag][@digest]`. */
import { Data, Option, Result } from "effect"
import * as Digest from "./Digest.ts"
import { isRegistry, isRepository, isTag } from "./Grammar.ts"

/** A reference in its parts; without a tag and a digest it names a repository. */
export interface Reference {
  /** Host of the registry as containerd names it (`docker.io`, `[::1]:5000`, `registry.example:5000`). */
  readonly registry: string
  /** Repository inside the registry, with the `library/` of docker.io's short names. */
  readonly repository: string
  /** At most 128 characters. There is no default. */
  readonly tag?: string
  readonly digest?: Digest.Digest
}

/** `reference` is not an image reference; `part` and `reason` say where and why. */
export class InvalidReference extends Data.TaggedError("InvalidReference")<{
  readonly reference: string
  readonly part: "registry" | "repository" | "tag" | "digest"
  readonly reason: string
}> {
  override get message() {
    return `invalid image reference ${JSON.stringify(this.reference.slice(0, 300))}: the ${this.part} ${this.reason}`
  }
}

const defaultRegistry = "docker.io"

/**
 * Reads a reference as docker and containerd do: the first component is a registry when it has a dot or a port or is
 * `localhost`; otherwise the registry is docker.io, whose one-component names lie under `library/`. No tag is made up.
 */
export const parse = (reference: string): Result.Result<Reference, InvalidReference> => {
  const invalid = (part: InvalidReference["part"], reason: string) =>
    Result.fail(new InvalidReference({ reference, part, reason }))

  const at = reference.indexOf("@")
  const named = at === -1 ? reference : reference.slice(0, at)
  const digest = at === -1 ? Option.none() : Digest.fromString(reference.slice(at + 1))
  if (at !== -1 && Option.isNone(digest)) {
    return invalid("digest", "must be sha256: and 64, or sha512: and 128 lower-case hexadecimal digits")
  }

  const slash = named.indexOf("/")
  const first = slash === -1 ? "" : named.slice(0, slash)
  const hasRegistry = /[.:[]/.test(first) || first === "localhost"
  const registry = hasRegistry ? (first === "index.docker.io" ? defaultRegistry : first) : defaultRegistry
  if (!isRegistry(registry)) return invalid("registry", "must be a host name or an IP address, with or without a port")

  const path = hasRegistry ? named.slice(slash + 1) : named
  const colon = path.lastIndexOf(":")
  const tag = colon === -1 ? undefined : path.slice(colon + 1)
  if (tag !== undefined && !isTag(tag)) {
    return invalid("tag", "must be 1 to 128 letters, digits, dots, dashes or underscores and begin with none of . -")
  }
  const short = colon === -1 ? path : path.slice(0, colon)
  const repository = registry === defaultRegistry && !short.includes("/") ? `library/${short}` : short
  if (short === "" || !isRepository(repository)) {
    return invalid("repository", "must be lower-case words joined by / . _ or -, at most 255 characters")
  }
  return Result.succeed({
    registry,
    repository,
    ...(tag === undefined ? {} : { tag }),
    ...(Option.isNone(digest) ? {} : { digest: digest.value })
  })
}

/** The full form, with registry; `parse` reads it back as it was. */
export const print = (reference: Reference): string =>
  `${reference.registry}/${reference.repository}` +
  (reference.tag === undefined ? "" : `:${reference.tag}`) +
  (reference.digest === undefined ? "" : `@${reference.digest}`)

/** `registry/repository:tag`: the name an image is kept and advertised under, without its digest. */
export const name = (reference: Reference): string =>
  print({
    registry: reference.registry,
    repository: reference.repository,
    ...(reference.tag === undefined ? {} : { tag: reference.tag })
  })
