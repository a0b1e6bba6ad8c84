/** Two members of a network in one process: one says what it has, the other finds it. `npm run example:router`. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Bootstrap from "@spegel-ts/router/Bootstrap"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import * as Libp2p from "@spegel-ts/router/Libp2p"
import { Router } from "@spegel-ts/router/Router"
import { Console, Context, Effect, Layer, Option, Schedule, Stream } from "effect"

const port = 25_901

/** A member that lives as long as the scope. */
const member = Effect.fnUntraced(function*(host: string, peers: ReadonlyArray<string>) {
  const bootstrap = yield* Effect.fromResult(Bootstrap.fromStatic(peers))
  const layer = Libp2p.layer({ host: Option.some(host), port, dataDir: Option.none(), servicePort: 5000 }).pipe(
    Layer.provide(Bootstrap.layer(bootstrap))
  )
  const context = yield* Layer.build(Layer.fresh(layer))
  return Context.get(context, Router)
})

const program = Effect.gen(function*() {
  const holder = yield* member("127.0.0.2", [])
  const seeker = yield* member("127.0.0.3", [`127.0.0.2:${port}`])
  const key = ContentKey.make("recipe:pancakes")

  // Until the first bootstrap round is over, a router says that it is not ready.
  const patience = { schedule: Schedule.spaced("100 millis"), times: 100 }
  yield* holder.advertise([key]).pipe(Effect.retry(patience))
  const [peer] = yield* Stream.runCollect(seeker.lookup(key, { count: 1 })).pipe(
    Effect.filterOrFail((peers) => peers.length > 0, () => "not found yet" as const),
    Effect.retry(patience)
  )
  yield* Console.log(`${key} is at ${peer?.addresses.join(", ")}`)
})

NodeRuntime.runMain(Effect.scoped(program))
