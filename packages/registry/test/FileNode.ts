/** A mirror on a real socket whose content is files of an OCI image layout, as in a daemon. */
import * as OciLayout from "@spegel-ts/content/OciLayout"
import * as HttpListener from "@spegel-ts/registry/HttpListener"
import { PullLog } from "@spegel-ts/registry/PullLog"
import { defaults, Registry, type RegistryOptions } from "@spegel-ts/registry/Registry"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import { type MemoryNetwork, Router } from "@spegel-ts/router/Router"
import type { DataPlane } from "@spegel-ts/transfer/DataPlane"
import { PeerTransport } from "@spegel-ts/transfer/PeerTransport"
import { Transfer } from "@spegel-ts/transfer/Transfer"
import { Context, Duration, Effect, Layer, Option } from "effect"
import { createHash, randomBytes } from "node:crypto"
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"

/** A node with a blob of each size, which it advertises. */
export const start = Effect.fnUntraced(function*(
  network: MemoryNetwork,
  address: string,
  sizes: ReadonlyArray<number> = [],
  options?: Partial<RegistryOptions> & {
    readonly plane?: DataPlane["name"]
    /** Whether peers and clients prove themselves, and the keys. By default nobody does. */
    readonly auth?: Layer.Layer<never>
  }
) {
  const root = yield* Effect.acquireRelease(
    Effect.promise(() => mkdtemp(join(tmpdir(), "spegel-filenode-"))),
    (root) => Effect.promise(() => rm(root, { recursive: true, force: true }))
  )
  const directory = join(root, "blobs", "sha256")
  yield* Effect.promise(() => mkdir(directory, { recursive: true }))
  const blobs = yield* Effect.forEach(sizes, (size) =>
    Effect.promise(async () => {
      const bytes = randomBytes(size)
      const hex = createHash("sha256").update(bytes).digest("hex")
      await writeFile(join(directory, hex), bytes)
      return {
        digest: `sha256:${hex}`,
        file: join(directory, hex),
        bytes,
        path: `/v2/team/app/blobs/sha256:${hex}?ns=registry.example`
      }
    }))
  let port = 0
  const self = {
    id: `file-node-${address}`,
    addresses: [address],
    // Known once it listens.
    get servicePort() {
      return port
    }
  }
  const context = yield* Layer.build(Layer.fresh(
    Registry.layer({
      ...defaults,
      resolveTimeout: Duration.seconds(5),
      firstByteTimeout: Duration.seconds(5),
      maxUploads: 0,
      maxUploadsPerPeer: 0,
      ...options
    }).pipe(
      Layer.provideMerge(Layer.mergeAll(
        OciLayout.layer({ root }),
        Router.layerMemory({ network, self }),
        PeerTransport.layer({ stallTimeout: Duration.seconds(5), minPeerSpeed: 0 }),
        PullLog.layer
      )),
      Layer.provideMerge(Transfer.layer({ plane: options?.plane ?? "auto" })),
      Layer.provide(options?.auth ?? Layer.empty)
    )
  ))
  const listener = yield* HttpListener.listen({
    host: Option.some(address),
    port: 0,
    handler: Context.get(context, Registry).handler,
    grace: Duration.seconds(1)
  })
  port = listener.port
  yield* Context.get(context, Router).advertise(blobs.map(({ digest }) => ContentKey.make(digest)))
  return {
    address,
    port,
    blobs,
    self,
    transport: Context.get(context, PeerTransport),
    log: Context.get(context, PullLog),
    /** Bodies that move now. */
    bodies: Effect.map(Context.get(context, Transfer).usage, ({ bodies }) => bodies)
  }
})

export type FileNode = Effect.Success<ReturnType<typeof start>>
