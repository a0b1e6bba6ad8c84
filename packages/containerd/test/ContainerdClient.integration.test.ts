import { assert, describe, it } from "@effect/vitest"
import { ContainerdClient, registryImages } from "@spegel-ts/containerd/ContainerdClient"
import * as ContainerdDaemon from "@spegel-ts/testing/containerd/ContainerdDaemon"
import { Effect, Layer } from "effect"
import { createServer } from "node:http"
import { join } from "node:path"

const missing = ContainerdDaemon.missingPrerequisite()
const clientOf = (socket: string) => ContainerdClient.layer({ socket, namespace: "k8s.io" })
const reasonOf = (socket: string) =>
  Layer.build(Layer.fresh(clientOf(socket))).pipe(Effect.flip, Effect.map(({ _tag, message }) => `${_tag} ${message}`))

describe.skipIf(missing !== undefined)(
  `ContainerdClient${missing === undefined ? "" : ` (skipped: ${missing})`}`,
  () => {
    it.live("tells a missing permission and another server from containerd", () =>
      Effect.gen(function*() {
        const daemon = yield* ContainerdDaemon.start()
        const other = join(daemon.directory, "http.sock")
        yield* Effect.acquireRelease(
          Effect.callback<ReturnType<typeof createServer>>((resume) => {
            const server = createServer((_, response) => response.end("hello"))
            server.listen(other, () => resume(Effect.succeed(server)))
          }),
          (server) =>
            Effect.sync(() => {
              server.closeAllConnections()
              server.close()
            })
        )
        const http = yield* reasonOf(other)
        assert.include(http, "ContainerdUnavailable")
        assert.include(http, "does not answer as containerd does")

        const denied = yield* Effect.acquireUseRelease(
          Effect.sync(() => process.seteuid?.(65534)),
          () => reasonOf(daemon.socket),
          () => Effect.sync(() => process.seteuid?.(0))
        )
        assert.include(denied, `permission denied on ${daemon.socket}`)
      }), 30_000)

    it.live("gives each refusal its tag", () =>
      Effect.gen(function*() {
        const daemon = yield* ContainerdDaemon.start()
        yield* Effect.gen(function*() {
          const client = yield* ContainerdClient
          assert.strictEqual((yield* Effect.flip(client.image("registry.example/app:v1")))._tag, "ContainerdNotFound")
          const none = { namespace: "k8s.io", ref: "layer-none" }
          assert.strictEqual((yield* Effect.flip(client.abortIngest(none)))._tag, "ContainerdNotFound")
          assert.strictEqual((yield* Effect.flip(client.images(["no filter ~~"])))._tag, "ContainerdFailed")
          assert.deepStrictEqual(yield* client.images([registryImages]), [])
        }).pipe(Effect.provide(clientOf(daemon.socket)))
      }), 30_000)
  }
)
