import * as Bootstrap from "@spegel-ts/router/Bootstrap"
import * as Libp2p from "@spegel-ts/router/Libp2p"
import { Router } from "@spegel-ts/router/Router"
import { Context, Effect, Layer, Option, Result } from "effect"

/** A router that lives as long as the scope; without a host it listens on all addresses. */
export const startRouter = (
  host: string | undefined,
  port: number,
  options?: { readonly dataDir?: string; readonly peers?: ReadonlyArray<string>; readonly bootstrap?: Bootstrap.Source }
) =>
  Effect.map(
    Layer.build(Layer.fresh(
      Libp2p.layer({
        host: Option.fromUndefinedOr(host),
        port,
        dataDir: Option.fromUndefinedOr(options?.dataDir),
        registryPort: 5000
      }).pipe(
        Layer.provide(
          Bootstrap.layer(options?.bootstrap ?? Result.getOrThrow(Bootstrap.fromStatic(options?.peers ?? [])))
        )
      )
    )),
    (context) => Context.get(context, Router)
  )
