/** Metrics of what is advertised. Only values that have changed are updated. */
import { Effect, Metric } from "effect"
import type { Snapshot } from "../StateTracker.ts"

/** The registry label of digests, which belong to none. */
const noRegistry = ""

const makeGauges = (registry: string) => {
  const attributes = { registry }
  return [
    Metric.gauge("spegel_advertised_images", { description: "Images advertised", attributes }),
    Metric.gauge("spegel_advertised_image_tags", { description: "Image names advertised", attributes }),
    Metric.gauge("spegel_advertised_image_digests", { description: "Images advertised by digest", attributes }),
    Metric.gauge("spegel_advertised_content_digests", {
      description: "Digests advertised; they belong to no registry",
      attributes
    }),
    Metric.gauge("spegel_advertised_keys", { description: "Keys advertised: names and digests", attributes })
  ] as const
}

/** By registry. Gauges are kept, because making one computes its key. */
const gauges = new Map<string, ReturnType<typeof makeGauges>>()

const gaugesOf = (registry: string) => {
  const known = gauges.get(registry) ?? makeGauges(registry)
  gauges.set(registry, known)
  return known
}

/** In the order of the gauges. */
const valuesOf = ({ digests, images, tags }: Snapshot, registry: string): ReadonlyArray<number> => {
  const content = registry === noRegistry ? digests : 0
  const named = images.get(registry) ?? 0
  const names = tags.get(registry) ?? 0
  return [named, names, named, content, names + content]
}

/** Publishes what has changed since `before`, or everything. A registry without images left is reported as 0. */
export const publish = (now: Snapshot, before?: Snapshot): Effect.Effect<void> => {
  const registries = new Set([noRegistry, ...now.tags.keys(), ...before?.tags.keys() ?? []])
  return Effect.forEach(registries, (registry) => {
    const values = valuesOf(now, registry)
    const earlier = before === undefined ? [] : valuesOf(before, registry)
    return Effect.forEach(
      gaugesOf(registry),
      (gauge, at) => values[at] === earlier[at] ? Effect.void : Metric.update(gauge, values[at] ?? 0),
      { discard: true }
    )
  }, { discard: true })
}
