/** Tells people what `configuration` did to hosts.toml files. */
import type { Change } from "@spegel-ts/containerd/MirrorConfiguration"
import { Effect } from "effect"

const done = { wrote: "wrote", unchanged: "left unchanged", removed: "removed the mirror from" }

/** A line for the file, and one for each host that containerd no longer asks. */
export const print = ({ kind, path, removedHosts }: Change): string =>
  [
    `${done[kind]} ${path}`,
    ...removedHosts.map((url) =>
      `  removed ${url}: \`spegel cleanup\` brings it back, --prepend-existing=true keeps it`
    )
  ].join("\n")

/** Warns about a file with something in it that containerd refuses. */
export const warn = ({ path, refused }: Change): Effect.Effect<void> =>
  refused.length === 0
    ? Effect.void
    : Effect.logWarning("containerd does not read this file as it was, or not in all versions: correct it").pipe(
      Effect.annotateLogs({ file: path, reason: refused.join("; ") })
    )
