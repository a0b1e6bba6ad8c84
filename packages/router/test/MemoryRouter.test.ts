import * as MemoryRouter from "@spegel-ts/router/MemoryRouter"
import { Router } from "@spegel-ts/router/Router"
import { routerConformance } from "@spegel-ts/router/RouterConformance"
import { Context, Effect, Layer } from "effect"

routerConformance(
  "in memory",
  Effect.gen(function*() {
    const network = MemoryRouter.network()
    const start = (id: string, address: string) =>
      Effect.map(
        Layer.build(
          Layer.fresh(MemoryRouter.layer({ network, self: { id, addresses: [address], servicePort: 5000 } }))
        ),
        (context) => Context.get(context, Router)
      )
    return [yield* start("a", "10.0.0.1"), yield* start("b", "10.0.0.2"), yield* start("c", "10.0.0.3")] as const
  })
)
