/** One node has a text; another asks the router who has it, and fetches it from there. `npm run example:peers`. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import * as MemoryRouter from "@spegel-ts/router/MemoryRouter"
import { Router } from "@spegel-ts/router/Router"
import { PeerTransport } from "@spegel-ts/transfer/PeerTransport"
import { Transfer } from "@spegel-ts/transfer/Transfer"
import { Console, Context, Duration, Effect, Layer, Stream } from "effect"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"

const key = ContentKey.make("recipe:pancakes")
const network = MemoryRouter.network()

/** Serves the text on a free port, and advertises it, as long as the scope is open. */
const holder = Effect.gen(function*() {
  const server = yield* Effect.acquireRelease(
    Effect.callback<ReturnType<typeof createServer>>((resume) => {
      const server = createServer((_, response) => response.end("flour, milk, eggs\n"))
      server.listen(0, "127.0.0.2", () => resume(Effect.succeed(server)))
    }),
    (server) => Effect.sync(() => server.close())
  )
  const { port } = server.address() as AddressInfo
  const self = { id: "holder", addresses: ["127.0.0.2"], servicePort: port }
  const context = yield* Layer.build(MemoryRouter.layer({ network, self }))
  yield* Context.get(context, Router).advertise([key])
})

/** Asks the first peer that is found for what it has under the key. */
const ask = Effect.fnUntraced(function*(key: ContentKey.ContentKey) {
  const router = yield* Router
  const transport = yield* PeerTransport
  const peer = yield* Stream.runHead(router.lookup(key, { count: 1 })).pipe(Effect.flatMap(Effect.fromOption))
  const { addresses, servicePort } = peer
  return yield* transport.request({ addresses, port: servicePort, method: "GET", url: "/", headers: {} })
})

const seeker = Effect.gen(function*() {
  const { address, body } = yield* ask(key)
  yield* Console.log(`${address} sends: ${(yield* Stream.mkString(Stream.decodeText(body))).trim()}`)
})

const Seeker = Layer.merge(
  MemoryRouter.layer({ network, self: { id: "seeker", addresses: ["127.0.0.3"], servicePort: 1 } }),
  PeerTransport.layer({ stallTimeout: Duration.seconds(2), minPeerSpeed: 0 }).pipe(
    Layer.provide(Transfer.layerPortable)
  )
)

const program = Effect.andThen(holder, Effect.scoped(seeker).pipe(Effect.provide(Seeker)))

NodeRuntime.runMain(Effect.scoped(program))
