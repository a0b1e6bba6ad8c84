import { PeerAuth, type PeerAuthState } from "@spegel-ts/cluster-key/PeerAuth"
import * as Bootstrap from "@spegel-ts/router/Bootstrap"
import { Identity, type Owner } from "@spegel-ts/router/Identity"
import * as Libp2p from "@spegel-ts/router/Libp2p"
import { Router } from "@spegel-ts/router/Router"
import { Context, type Duration, Effect, Layer, Option, Result } from "effect"

/** Starts a router that stops with the scope. Without a host it listens on all addresses. */
export const startRouter = (
  host: string | undefined,
  port: number,
  options?: {
    readonly dataDir?: string
    readonly owner?: Owner
    readonly peers?: ReadonlyArray<string>
    readonly bootstrap?: Bootstrap.Source
    readonly joinGrace?: Duration.Duration
    readonly auth?: PeerAuthState
    readonly zone?: string
    readonly servicePort?: number
  }
) =>
  Effect.map(
    Layer.build(Layer.fresh(
      Libp2p.layer({
        host: Option.fromUndefinedOr(host),
        port,
        servicePort: options?.servicePort ?? 5000,
        zone: options?.zone,
        ...(options?.joinGrace === undefined ? {} : { joinGrace: options.joinGrace })
      }).pipe(
        Layer.provide(
          Bootstrap.layer(options?.bootstrap ?? Result.getOrThrow(Bootstrap.fromStatic(options?.peers ?? [])))
        ),
        Layer.provide(
          options?.dataDir === undefined
            ? Identity.layerMemory
            : Identity.layer({ dataDir: options.dataDir, owner: options.owner ?? {} })
        ),
        Layer.provide(Layer.succeed(PeerAuth, options?.auth ?? { mode: "off" }))
      )
    )),
    (context) => Context.get(context, Router)
  )
