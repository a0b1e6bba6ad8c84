/** Serves an image that a program makes, as a registry, and pulls it by HTTP. `npm run example:store`. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Reference from "@spegel-ts/oci/Reference"
import * as HttpListener from "@spegel-ts/registry/HttpListener"
import { PullLog } from "@spegel-ts/registry/PullLog"
import { defaults, Registry } from "@spegel-ts/registry/Registry"
import * as MemoryRouter from "@spegel-ts/router/MemoryRouter"
import { PeerTransport } from "@spegel-ts/transfer/PeerTransport"
import { Transfer } from "@spegel-ts/transfer/Transfer"
import { Console, Duration, Effect, Layer, Option } from "effect"
import * as NoteStore from "./NoteStore.ts"

const self = { id: "alone", addresses: ["127.0.0.1"], servicePort: 1 }

/** A mirror whose peers, if it had any, would be in the same process. */
const Mirror = (reference: Reference.Reference) =>
  Registry.layer(defaults).pipe(
    Layer.provide([
      NoteStore.layer(reference, ["flour, milk, eggs\n"]),
      MemoryRouter.layer({ network: MemoryRouter.network(), self }),
      PeerTransport.layer({ stallTimeout: Duration.seconds(2), minPeerSpeed: 0 }),
      PullLog.layer
    ]),
    Layer.provide(Transfer.layerPortable)
  )

const get = (url: string) => Effect.tryPromise(() => fetch(url))

/** Gets the manifest of a tag, then its first layer, as a container runtime does. */
const pull = Effect.fnUntraced(function*(port: number) {
  const base = `http://127.0.0.1:${port}/v2/recipes/pancakes`
  const response = yield* get(`${base}/manifests/v1?ns=notes.example`)
  const manifest = yield* Effect.promise(() =>
    response.json() as Promise<{ readonly layers: ReadonlyArray<{ readonly digest: string }> }>
  )
  const blob = yield* get(`${base}/blobs/${manifest.layers[0]?.digest}?ns=notes.example`)
  return yield* Effect.promise(() => blob.text())
})

const program = Effect.gen(function*() {
  const { handler } = yield* Registry
  const { port } = yield* HttpListener.listen({
    host: Option.some("127.0.0.1"),
    port: 0,
    handler,
    grace: Duration.seconds(1)
  })
  yield* Console.log(`recipes/pancakes:v1 says: ${(yield* pull(port)).trim()}`)
})

NodeRuntime.runMain(
  Effect.fromResult(Reference.parse("notes.example/recipes/pancakes:v1")).pipe(
    Effect.flatMap((reference) => Effect.scoped(program).pipe(Effect.provide(Mirror(reference))))
  )
)
