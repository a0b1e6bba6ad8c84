/**
 * What this node knows of a containerd that does not use the mirror, or keeps no layers for peers. Each fault is told once
 * in the log, and on the debug page and by a metric for as long as it is there.
 */
import { Context, Effect, Layer, Metric } from "effect"
import type { CertainFinding } from "./MirrorUse.ts"

/** A finding in containerd's configuration, or what pulls showed. */
export type Reason = CertainFinding["_tag"] | "NotAsked"

/** Whether containerd does not use the mirror: a request of containerd refutes it. */
const meansUnused: Readonly<Record<Reason, boolean>> = {
  ConfigPathIsList: true,
  ConfigPathUnset: true,
  CriDisabled: true,
  InlineConflict: true,
  KeyIgnored: true,
  LayersDiscarded: false,
  NotAsked: true,
  UpgradeWillIgnoreConfigPath: false
}

export const reasons = Object.keys(meansUnused) as ReadonlyArray<Reason>

/** Those by which containerd does not use the mirror. */
export const unused = reasons.filter((reason) => meansUnused[reason])

const fault = (reason: Reason) =>
  Metric.gauge("spegel_containerd_fault", {
    description: "1 while something keeps containerd from using this mirror, or from having layers for peers",
    attributes: { reason }
  })

export class ContainerdFaults extends Context.Service<ContainerdFaults, {
  /** Logged at WARN, unless it is known. */
  readonly raise: (reason: Reason, message: string) => Effect.Effect<void>
  /** Logged at INFO, where one of them is known. */
  readonly clear: (reasons: ReadonlyArray<Reason>, message: string) => Effect.Effect<void>
  /** What is known now, and what was logged of it. */
  readonly known: Effect.Effect<ReadonlyMap<Reason, string>>
}>()("@spegel-ts/spegel/ContainerdFaults") {
  static readonly layer: Layer.Layer<ContainerdFaults> = Layer.effect(
    ContainerdFaults,
    Effect.gen(function*() {
      const known = new Map<Reason, string>()
      yield* Effect.forEach(reasons, (reason) => Metric.update(fault(reason), 0), { discard: true })
      return ContainerdFaults.of({
        raise: Effect.fnUntraced(function*(reason, message) {
          if (known.has(reason)) return
          known.set(reason, message)
          yield* Metric.update(fault(reason), 1)
          yield* Effect.logWarning(message).pipe(Effect.annotateLogs({ reason }))
        }),
        clear: Effect.fnUntraced(function*(reasons, message) {
          const gone = reasons.filter((reason) => known.delete(reason))
          if (gone.length === 0) return
          yield* Effect.forEach(gone, (reason) => Metric.update(fault(reason), 0), { discard: true })
          yield* Effect.logInfo(message).pipe(Effect.annotateLogs({ mended: gone.join(", ") }))
        }),
        known: Effect.sync(() => new Map(known))
      })
    })
  )
}
