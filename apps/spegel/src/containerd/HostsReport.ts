/** Tells people what `configuration` did to hosts.toml files. */
import { Change } from "@spegel-ts/containerd/MirrorConfiguration"
import { Effect } from "effect"

const removals = (urls: ReadonlyArray<string>) =>
  urls.map((url) => `\n  removed ${url}: \`spegel cleanup\` brings it back, --prepend-existing=true keeps it`).join("")

/** One line, and one more for each host that containerd no longer asks. */
export const print: (change: Change) => string = Change.$match({
  Wrote: ({ path, removedHosts }) => `wrote ${path}${removals(removedHosts)}`,
  Unchanged: ({ path, removedHosts }) => `left unchanged ${path}${removals(removedHosts)}`,
  Removed: ({ path }) => `removed the mirror from ${path}`
})

/** Logs why containerd refused a file as it was. */
export const warn = (change: Change): Effect.Effect<void> =>
  change._tag === "Removed" || change.refused.length === 0
    ? Effect.void
    : Effect.logWarning("some or all versions of containerd refused this file as it was: correct it").pipe(
      Effect.annotateLogs({ file: change.path, reason: change.refused.join("; ") })
    )
