import * as MirrorConfiguration from "@spegel-ts/containerd/MirrorConfiguration"
import * as HttpListener from "@spegel-ts/registry/HttpListener"
import { Console, Duration, Effect, Option, Schema } from "effect"
import { Command } from "effect/cli"
import { one } from "../cli/Flags.ts"
import { ListenAddress, print } from "../cli/ListenAddress.ts"
import { textSchema } from "../cli/TextSchema.ts"
import { containerdRegistryConfigPath } from "./shared.ts"

const addressOrNone = textSchema<Option.Option<ListenAddress>>({
  expected: "an address to listen on, such as :8080",
  parse: (text) =>
    text === "" ? Option.some(Option.none()) : Option.map(Schema.decodeOption(ListenAddress)(text), Option.some),
  print: Option.match({ onNone: () => "", onSome: print })
})

const flags = {
  containerdRegistryConfigPath,
  addr: one({
    name: "addr",
    description: "Where to answer GET /healthz when it is done, until it is stopped. Default: end when it is done",
    schema: addressOrNone,
    fallback: "",
    metavar: "[IP]:PORT"
  })
}

const probe: HttpListener.Handler = (request, response) =>
  Effect.sync(() => {
    response.writeHead(request.url === "/healthz" ? 200 : 404, { "content-length": 0 }).end()
  })

export const cleanup = Command.make(
  "cleanup",
  flags,
  Effect.fnUntraced(function*({ addr, containerdRegistryConfigPath }) {
    const restored = yield* MirrorConfiguration.remove(containerdRegistryConfigPath)
    yield* Effect.forEach(restored, (path) => Console.log(`restored ${path}`))
    if (Option.isNone(addr)) return
    yield* HttpListener.listen({ ...addr.value, handler: probe, grace: Duration.zero })
    yield* Effect.logInfo("restored, waiting to be stopped").pipe(
      Effect.annotateLogs({ files: restored.length, addr: print(addr.value) })
    )
    return yield* Effect.never
  }, Effect.scoped)
).pipe(Command.withDescription("Undo what configuration did: give containerd its own hosts.toml files back"))
