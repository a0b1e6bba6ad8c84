/** The images that the mirror handles: a list of registries, and patterns that leave names out. */
import { Data, Result } from "effect"
import { isRegistry } from "./Grammar.ts"
import type { NamePattern } from "./NamePattern.ts"
import * as Reference from "./Reference.ts"

/** True when the mirror handles the image. */
export type RegistryFilter = (reference: Reference.Reference) => boolean

/** A mirrored registry that is neither a host nor a URL of one. */
export class InvalidRegistry extends Data.TaggedError("InvalidRegistry")<{ readonly registry: string }> {
  override get message() {
    return `${
      JSON.stringify(this.registry)
    } is not a registry: expected a host such as docker.io or a URL such as https://registry.example:5000`
  }
}

/** The host of a registry that is named by its host, or by a URL without path, query and credentials. */
export const registryHost = (registry: string): Result.Result<string, InvalidRegistry> => {
  const host = /^https?:\/\/([^/]+)\/?$/.exec(registry)?.[1] ?? registry
  return isRegistry(host) ? Result.succeed(host) : Result.fail(new InvalidRegistry({ registry }))
}

/**
 * An empty `mirroredRegistries` means all. A pattern that matches `registry/repository:tag` (without `:tag` if a digest
 * is asked for) leaves the image out, as in Spegel: `:latest$` leaves all latest tags to upstream.
 */
export const make = (options: {
  readonly mirroredRegistries: ReadonlyArray<string>
  readonly registryFilters: ReadonlyArray<NamePattern>
}): Result.Result<RegistryFilter, InvalidRegistry> =>
  Result.map(Result.all(options.mirroredRegistries.map(registryHost)), (hosts) => {
    const mirrored = new Set(hosts)
    return (reference) => {
      if (mirrored.size > 0 && !mirrored.has(reference.registry)) return false
      const name = Reference.name(reference)
      return !options.registryFilters.some(({ matches }) => matches(name))
    }
  })
