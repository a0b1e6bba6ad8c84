/** What is advertised, as metrics: only what has changed is updated. */
import { Effect, Metric } from "effect"
import type { Snapshot } from "../StateTracker.ts"

const advertisedImages = Metric.gauge("spegel_advertised_images", { description: "Images advertised" })
const advertisedTags = Metric.gauge("spegel_advertised_image_tags", { description: "Image names advertised" })
const advertisedDigests = Metric.gauge("spegel_advertised_image_digests", {
  description: "Images advertised by digest"
})
const advertisedContent = Metric.gauge("spegel_advertised_content_digests", {
  description: "Digests advertised; they belong to no registry"
})
const advertisedKeys = Metric.gauge("spegel_advertised_keys", { description: "Keys advertised: names and digests" })

/** What digests are counted under. */
const noRegistry = ""

const valuesOf = ({ digests, images, tags }: Snapshot, registry: string) => {
  const content = registry === noRegistry ? digests : 0
  const named = images.get(registry) ?? 0
  const names = tags.get(registry) ?? 0
  return [
    [advertisedImages, named],
    [advertisedTags, names],
    [advertisedDigests, named],
    [advertisedContent, content],
    [advertisedKeys, names + content]
  ] as const
}

/** Publishes what has changed since `before`, or everything. A registry whose last image has gone is reported as 0. */
export const publish = (now: Snapshot, before?: Snapshot): Effect.Effect<void> =>
  Effect.forEach(
    new Set([noRegistry, ...now.tags.keys(), ...before?.tags.keys() ?? []]),
    (registry) => {
      const earlier = before === undefined ? [] : valuesOf(before, registry)
      return Effect.forEach(
        valuesOf(now, registry).filter(([, value], at) => value !== earlier[at]?.[1]),
        ([metric, value]) => Metric.update(Metric.withAttributes(metric, { registry }), value),
        { discard: true }
      )
    },
    { discard: true }
  )
