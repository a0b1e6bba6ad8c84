/** Metrics of what is advertised, by registry. Only values that have changed are updated. */
import * as MetricFamily from "@spegel-ts/background/MetricFamily"
import { Effect, Metric } from "effect"
import type { Snapshot } from "../StateTracker.ts"

/** The registry label of digests, which belong to none. */
const noRegistry = ""

const imagesOf = ({ images }: Snapshot, registry: string) => images.get(registry) ?? 0
const namesOf = ({ tags }: Snapshot, registry: string) => tags.get(registry) ?? 0
const digestsOf = ({ digests }: Snapshot, registry: string) => registry === noRegistry ? digests : 0

/** Each gauge with its value for a registry. */
const gauges = [
  { gauge: Metric.gauge("spegel_advertised_images", { description: "Images advertised" }), valueOf: imagesOf },
  { gauge: Metric.gauge("spegel_advertised_image_tags", { description: "Image names advertised" }), valueOf: namesOf },
  {
    gauge: Metric.gauge("spegel_advertised_image_digests", { description: "Images advertised by digest" }),
    valueOf: imagesOf
  },
  {
    gauge: Metric.gauge("spegel_advertised_content_digests", {
      description: "Digests advertised; they belong to no registry"
    }),
    valueOf: digestsOf
  },
  {
    gauge: Metric.gauge("spegel_advertised_keys", { description: "Keys advertised: names and digests" }),
    valueOf: (snapshot: Snapshot, registry: string) => namesOf(snapshot, registry) + digestsOf(snapshot, registry)
  }
].map(({ gauge, valueOf }) => ({ family: MetricFamily.make(gauge), valueOf }))

/** Publishes what has changed since `before`, or everything. A registry without images left is reported as 0. */
export const publish = (now: Snapshot, before?: Snapshot): Effect.Effect<void> => {
  const registries = new Set([noRegistry, ...now.tags.keys(), ...before?.tags.keys() ?? []])
  const changes = [...registries].flatMap((registry) =>
    gauges.flatMap(({ family, valueOf }) => {
      const value = valueOf(now, registry)
      const isSame = before !== undefined && valueOf(before, registry) === value
      return isSame ? [] : Metric.update(family.of({ registry }), value)
    })
  )
  return Effect.all(changes, { discard: true })
}
