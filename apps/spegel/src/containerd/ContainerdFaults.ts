/**
 * Known faults of containerd: it does not use the mirror, or keeps no layers for peers. A fault is logged once, and is
 * on the debug page and in a metric as long as it lasts.
 */
import { Context, Effect, Layer, Metric } from "effect"
import type { CertainFinding } from "./MirrorUse.ts"

/** A finding in containerd's configuration, or in what it pulls (`NotAsked`). */
export type Reason = CertainFinding["_tag"] | "NotAsked"

/** Whether the fault means that containerd does not use the mirror. A request by containerd refutes it. */
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

/** Faults which mean that containerd does not use the mirror. */
export const unused = reasons.filter((reason) => meansUnused[reason])

const fault = (reason: Reason) =>
  Metric.gauge("spegel_containerd_fault", {
    description: "1 while something keeps containerd from using this mirror, or from having layers for peers",
    attributes: { reason }
  })

export class ContainerdFaults extends Context.Service<ContainerdFaults, {
  /** Records a fault. Logs it at WARN if it is new. */
  readonly raise: (reason: Reason, message: string) => Effect.Effect<void>
  /** Removes faults. Logs `message` at INFO if there was one of them. */
  readonly clear: (reasons: ReadonlyArray<Reason>, message: string) => Effect.Effect<void>
  /** Present faults, with their log messages. */
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
