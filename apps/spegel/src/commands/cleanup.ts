import * as MirrorConfiguration from "@spegel-ts/containerd/MirrorConfiguration"
import * as HttpListener from "@spegel-ts/registry/HttpListener"
import { Console, Duration, Effect, Option } from "effect"
import { Command } from "effect/cli"
import { ListenAddress, print } from "../cli/ListenAddress.ts"
import { flagsOf, one } from "../cli/Setting.ts"
import { optional } from "../cli/TextSchema.ts"
import { containerdRegistryConfigPath } from "../settings/SharedSettings.ts"

export const cleanupSettings = {
  containerdRegistryConfigPath,
  addr: one({
    description: "Where to answer GET /healthz once all is restored, until stopped. Default: end once all is restored",
    schema: optional(ListenAddress),
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
  flagsOf(cleanupSettings),
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
).pipe(
  Command.withDescription("Undo what configuration did: give containerd its own hosts.toml files back"),
  Command.withExamples([
    { command: "spegel cleanup", description: "On a node where the mirror is being uninstalled" }
  ])
)
