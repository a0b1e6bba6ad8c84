import * as Bootstrap from "@spegel-ts/router/Bootstrap"
import type { Owner } from "@spegel-ts/router/Identity"
import * as Libp2p from "@spegel-ts/router/Libp2p"
import { Router } from "@spegel-ts/router/Router"
import { Context, type Duration, Effect, Layer, Option, Result } from "effect"

/** A router that lives as long as the scope; without a host it listens on all addresses. */
export const startRouter = (
  host: string | undefined,
  port: number,
  options?: {
    readonly dataDir?: string
    readonly owner?: Owner
    readonly peers?: ReadonlyArray<string>
    readonly bootstrap?: Bootstrap.Source
    readonly joinGrace?: Duration.Duration
  }
) =>
  Effect.map(
    Layer.build(Layer.fresh(
      Libp2p.layer({
        host: Option.fromUndefinedOr(host),
        port,
        servicePort: 5000,
        dataDir: Option.fromUndefinedOr(options?.dataDir),
        ...(options?.owner === undefined ? {} : { owner: options.owner }),
        ...(options?.joinGrace === undefined ? {} : { joinGrace: options.joinGrace })
      }).pipe(
        Layer.provide(
          Bootstrap.layer(options?.bootstrap ?? Result.getOrThrow(Bootstrap.fromStatic(options?.peers ?? [])))
        )
      )
    )),
    (context) => Context.get(context, Router)
  )
