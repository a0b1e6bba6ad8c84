/** The router's metrics, under Spegel's names. */
import { Clock, Effect, Metric, Stream } from "effect"

const resolveDuration = Metric.histogram("spegel_resolve_duration_seconds", {
  description: "How long it took to find the first peer with a key, or to know that there is none",
  boundaries: [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5],
  attributes: { router: "libp2p" }
})

/** Measures a lookup up to its first peer, or up to its end where it finds none. */
export const resolved = <A, E, R>(lookup: Stream.Stream<A, E, R>): Stream.Stream<A, E, R> =>
  Stream.unwrap(Effect.map(Clock.currentTimeMillis, (started) => {
    let counted = false
    const count = Effect.suspend(() => {
      if (counted) return Effect.void
      counted = true
      return Effect.flatMap(
        Clock.currentTimeMillis,
        (now) => Metric.update(resolveDuration, (now - started) / 1000)
      )
    })
    return lookup.pipe(Stream.tap(() => count), Stream.onEnd(count))
  }))
