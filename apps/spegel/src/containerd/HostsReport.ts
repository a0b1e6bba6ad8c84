/** What `configuration` did to hosts.toml files, for people. */
import type { Change } from "@spegel-ts/containerd/MirrorConfiguration"
import { Effect } from "effect"

const done = { wrote: "wrote", unchanged: "left unchanged", removed: "removed the mirror from" }

/** One line, with one more for each host that is not asked any more. */
export const print = ({ kind, path, removedHosts }: Change): string =>
  [
    `${done[kind]} ${path}`,
    ...removedHosts.map((url) =>
      `  removed ${url}: \`spegel cleanup\` brings it back, --prepend-existing=true keeps it`
    )
  ].join("\n")

/** Says that a file was not what its author took it for. */
export const warn = ({ path, refused }: Change): Effect.Effect<void> =>
  refused.length === 0
    ? Effect.void
    : Effect.logWarning("containerd does not read what stood in this file, or not in all versions: put it right").pipe(
      Effect.annotateLogs({ file: path, reason: refused.join("; ") })
    )
