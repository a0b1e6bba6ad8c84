/** `Router`s of one process that know each other through a shared `Network`: for tests and examples. No libp2p. */
import { Effect, Layer, Stream } from "effect"
import type { ContentKey } from "./ContentKey.ts"
import type { Peer } from "./Peer.ts"
import { Router, Standing } from "./Router.ts"

/** What routers in memory share: who provides what. */
export interface Network {
  readonly members: Map<string, Peer>
  readonly providers: Map<ContentKey, Set<string>>
}

/** A network without members. */
export const network = (): Network => ({ members: new Map(), providers: new Map() })

/** A member of `network`; it leaves, and its keys go with it, when the layer's scope closes. */
export const layer = (options: { readonly network: Network; readonly self: Peer }): Layer.Layer<Router> =>
  Layer.effect(
    Router,
    Effect.gen(function*() {
      const { network: { members, providers }, self } = options
      const withdraw = (keys: Iterable<ContentKey>) => {
        for (const key of keys) providers.get(key)?.delete(self.id)
      }
      let left = false
      const leave = Effect.sync(() => {
        left = true
        members.delete(self.id)
        withdraw(providers.keys())
      })
      yield* Effect.acquireRelease(Effect.sync(() => members.set(self.id, self)), () => leave)
      const others = () => [...members.values()].filter(({ id }) => id !== self.id)
      return Router.of({
        advertise: (keys) =>
          Effect.sync(() => {
            if (left) return
            for (const key of keys) {
              const holders = providers.get(key) ?? new Set()
              providers.set(key, holders.add(self.id))
            }
          }),
        withdraw: (keys) => Effect.sync(() => withdraw(keys)),
        lookup: (key, { count }) =>
          Stream.suspend(() => {
            const holders = [...providers.get(key) ?? []].filter((id) => id !== self.id)
            return Stream.fromIterable(holders.flatMap((id) => members.get(id) ?? []))
          }).pipe(Stream.take(count)),
        ready: Effect.succeed(true),
        standing: Effect.sync(() => {
          const peers = others().length
          return peers > 0 ? Standing.Joined({ peers }) : Standing.Alone({ reason: "nobody else is in the network" })
        }),
        leave,
        peers: Effect.sync(others),
        self: Effect.succeed(self)
      })
    })
  )
