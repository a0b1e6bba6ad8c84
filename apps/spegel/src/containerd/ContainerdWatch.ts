/**
 * Watches whether containerd uses this mirror and keeps layers for peers: at the start by its configuration, later by
 * what the kubelet pulls. Load it late: it brings a TOML parser.
 */
import * as Background from "@spegel-ts/background/Background"
import * as ConfigFindings from "@spegel-ts/containerd/ConfigFindings"
import { ContainerdClient, type ContainerdClientOptions } from "@spegel-ts/containerd/ContainerdClient"
import * as KubeletPulls from "@spegel-ts/containerd/KubeletPulls"
import { ContentStore } from "@spegel-ts/content/ContentStore"
import { Effect, Option, Schedule } from "effect"
import { ContainerdFaults, type Reason, reasons } from "./ContainerdFaults.ts"
import * as MirrorUse from "./MirrorUse.ts"
import * as UseWatch from "./UseWatch.ts"

export interface ContainerdWatchOptions extends Omit<UseWatch.UseWatchOptions, "faults"> {
  readonly containerd: ContainerdClientOptions
  /** containerd's configuration file; empty if it is out of reach. */
  readonly containerdConfig: string
}

const retry = "2 seconds"
const maxChecks = 30

/** Runs in the background of the scope. */
export const start = Effect.fnUntraced(function*(options: ContainerdWatchOptions) {
  const faults = yield* ContainerdFaults
  const store = yield* ContentStore
  const watch = yield* UseWatch.make({ ...options, faults })
  yield* Background.keepRunning("watch of the mirror's use", watch.run)

  const checkConfiguration = Effect.fnUntraced(function*(client: typeof ContainerdClient.Service) {
    const findings = yield* MirrorUse.findings(client, options)
    if (Option.isNone(findings)) return
    const found = new Set<Reason>(findings.value.map(({ _tag }) => _tag))
    yield* faults.clear(
      reasons.filter((reason) => reason !== "NotAsked" && !found.has(reason)),
      "containerd's configuration has been mended"
    )
    yield* Effect.forEach(
      findings.value,
      (finding) => faults.raise(finding._tag, ConfigFindings.describe(finding)),
      { discard: true }
    )
  })

  // Ends when containerd stops, which the store logs, and starts again with the configuration that containerd then has.
  const follow = Effect.gen(function*() {
    const client = yield* ContainerdClient
    const check = checkConfiguration(client).pipe(
      // The CRI plugin starts later than containerd.
      Effect.retry({ schedule: Schedule.spaced(retry), times: maxChecks }),
      Effect.catch(({ message }) => Effect.logDebug(`cannot check containerd's configuration: ${message}`))
    )
    const pulls = KubeletPulls.follow({ client, store, onPull: watch.pulled })
    yield* Effect.all([check, pulls], { concurrency: "unbounded" })
  }).pipe(
    Effect.provide(ContainerdClient.layer({ ...options.containerd, socketSetting: "--containerd-sock" })),
    Effect.scoped,
    Effect.catchTag("ContainerdUnavailable", ({ message }) => Effect.logDebug(message)),
    Effect.andThen(Effect.sleep(retry)),
    Effect.forever
  )
  yield* Background.keepRunning("watch of the kubelet's pulls", follow)
})
