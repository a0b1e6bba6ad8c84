/** A rogue that joins a cluster as this product's own router does. */
import type { KeyRing } from "@spegel-ts/cluster-key/KeyRing"
import * as PeerAuth from "@spegel-ts/cluster-key/PeerAuth"
import * as Bootstrap from "@spegel-ts/router/Bootstrap"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import { Identity } from "@spegel-ts/router/Identity"
import * as Libp2p from "@spegel-ts/router/Libp2p"
import { Router } from "@spegel-ts/router/Router"
import { freePort } from "@spegel-ts/testing/network/FreePort"
import { Context, Effect, Layer, Logger, Option, Result } from "effect"

export interface RogueOptions {
  readonly address: string
  /** Where its registry is said to be. */
  readonly servicePort: number
  /** A node of the cluster, as `IP:PORT`. */
  readonly bootstrap: string
  /** The cluster key; undefined if it has none. */
  readonly ring: KeyRing | undefined
}

/** Joins with an identity of its own, and leaves when the scope closes. */
export const join = Effect.fnUntraced(function*({ address, bootstrap, ring, servicePort }: RogueOptions) {
  const layer = Libp2p.layer({ host: Option.some(address), port: yield* freePort, servicePort }).pipe(
    Layer.provide(Bootstrap.layer(Result.getOrThrow(Bootstrap.fromStatic([bootstrap])))),
    Layer.provide(Identity.layerMemory),
    Layer.provide(ring === undefined ? Layer.empty : PeerAuth.layer({ mode: "require", ring }))
  )
  // Its log is of no use to anybody.
  const context = yield* Layer.build(Layer.fresh(layer)).pipe(Effect.provide(Logger.layer([])))
  const router = Context.get(context, Router)
  const { id } = yield* router.self
  return {
    id,
    router,
    /** One that nobody has let in provides the keys as soon as somebody does. */
    advertise: (...keys: ReadonlyArray<string>) =>
      Effect.ignore(router.advertise(keys.map((key) => ContentKey.make(key))))
  }
})

export type RogueMember = Effect.Success<ReturnType<typeof join>>

/** As many identities as one address may have in a member's table. */
export const identitiesOfAddress = 16

/** Joins as one machine that claims to be many. */
export const joinAsMany = (options: RogueOptions, count: number = identitiesOfAddress) =>
  Effect.forEach(Array.from({ length: count }), () => join(options), { concurrency: 4 })
