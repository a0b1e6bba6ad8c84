/**
 * What this node knows of a containerd that does not use the mirror, or keeps nothing for peers: told once in the log, and
 * on the debug page and by a metric for as long as it is so.
 */
import type { Finding } from "@spegel-ts/containerd/ContainerdConfig"
import { Context, Effect, Layer, Metric } from "effect"

/** A finding in containerd's configuration, or what pulls showed. */
export type Reason = Finding["_tag"] | "LayersDiscarded" | "NotAsked"

const findings: Readonly<Record<Finding["_tag"], true>> = {
  ConfigPathElsewhere: true,
  ConfigPathIsList: true,
  ConfigPathUnset: true,
  CriDisabled: true,
  InlineConflict: true,
  InlineMirrors: true,
  KeyIgnored: true
}

/** What containerd's configuration can show. */
export const ofConfiguration = Object.keys(findings) as ReadonlyArray<Finding["_tag"]>

const all: ReadonlyArray<Reason> = [...ofConfiguration, "LayersDiscarded", "NotAsked"]

const fault = (reason: string) =>
  Metric.gauge("spegel_containerd_fault", {
    description: "1 while something keeps containerd from using this mirror, or layers from peers, by what it is",
    attributes: { reason }
  })

export class ContainerdFaults extends Context.Service<ContainerdFaults, {
  /** Told at WARN, unless it is known. */
  readonly raise: (reason: Reason, message: string) => Effect.Effect<void>
  /** `message` is told at INFO where one of these is known. */
  readonly clear: (reasons: ReadonlyArray<Reason>, message: string) => Effect.Effect<void>
  /** What is known now. */
  readonly known: Effect.Effect<ReadonlyMap<Reason, string>>
}>()("@spegel-ts/spegel/ContainerdFaults") {
  static readonly layer: Layer.Layer<ContainerdFaults> = Layer.effect(
    ContainerdFaults,
    Effect.gen(function*() {
      const known = new Map<Reason, string>()
      yield* Effect.forEach(all, (reason) => Metric.update(fault(reason), 0), { discard: true })
      return ContainerdFaults.of({
        raise: Effect.fnUntraced(function*(reason, message) {
          if (known.has(reason)) return
          known.set(reason, message)
          yield* Metric.update(fault(reason), 1)
          yield* Effect.logWarning(message)
        }),
        clear: Effect.fnUntraced(function*(reasons, message) {
          const gone = reasons.filter((reason) => known.delete(reason))
          if (gone.length === 0) return
          yield* Effect.forEach(gone, (reason) => Metric.update(fault(reason), 0), { discard: true })
          yield* Effect.logInfo(message)
        }),
        known: Effect.sync(() => new Map(known))
      })
    })
  )
}
