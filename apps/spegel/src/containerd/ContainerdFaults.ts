/**
 * The reasons why containerd does not use the mirror, or keeps no layers for peers, as far as this node knows. Each is logged once,
 * and shown on the debug page and by a metric as long as it holds.
 */
import { Context, Effect, Layer, Metric } from "effect"
import type { CertainFinding } from "./MirrorUse.ts"

/** A finding in containerd's configuration, or one from its pulls (`NotAsked`). */
export type Reason = CertainFinding["_tag"] | "NotAsked"

/** Whether the reason means that containerd does not use the mirror, which a request of containerd disproves. */
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

/** All reasons. */
export const reasons = Object.keys(meansUnused) as ReadonlyArray<Reason>

/** The reasons that mean that containerd does not use the mirror. */
export const unused = reasons.filter((reason) => meansUnused[reason])

const fault = (reason: Reason) =>
  Metric.gauge("spegel_containerd_fault", {
    description: "1 while something keeps containerd from using this mirror, or from having layers for peers",
    attributes: { reason }
  })

/** The known reasons, kept in one place for the log, the metric and the debug page. */
export class ContainerdFaults extends Context.Service<ContainerdFaults, {
  /** A reason holds. Logs the message at WARN, unless the reason is known. */
  readonly raise: (reason: Reason, message: string) => Effect.Effect<void>
  /** Reasons no longer hold. Logs the message at INFO if one of them was known. */
  readonly clear: (reasons: ReadonlyArray<Reason>, message: string) => Effect.Effect<void>
  /** The reasons that hold now, with the messages that were logged. */
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
