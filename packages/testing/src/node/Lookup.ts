/** Whether a mirror can have content from its peers. */
import type { Reference } from "@spegel-ts/oci/Reference"
import { Effect, Schedule } from "effect"
import type { RandomImage } from "../content/RandomImage.ts"

/** The paths of all parts of an image, below its repository. */
export const pathsOf = ({ objects, reference }: RandomImage): ReadonlyArray<string> => [
  `manifests/${reference.tag}`,
  ...objects.map(({ descriptor }) => `blobs/${descriptor.digest}`)
]

/**
 * Waits until the mirror at `url` finds all these paths of a repository; fails after 20 seconds with what is missing. It is asked with
 * these header fields.
 */
export const untilFound = (
  url: string,
  { registry, repository }: Pick<Reference, "registry" | "repository">,
  paths: ReadonlyArray<string>,
  headers: Readonly<Record<string, string>> = {}
): Effect.Effect<void, string> =>
  Effect.forEach(paths, (path) =>
    Effect.tryPromise({
      try: (signal) =>
        fetch(`${url}/v2/${repository}/${path}?ns=${encodeURIComponent(registry)}`, {
          method: "HEAD",
          headers,
          signal
        }),
      catch: String
    }).pipe(
      Effect.filterOrFail((response) => response.ok, ({ status }) => `${path}: ${status}`)
    ), { discard: true }).pipe(Effect.retry({ schedule: Schedule.spaced("100 millis"), times: 200 }))
