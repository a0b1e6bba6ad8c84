/** A peer whose registry is a `FaultServer`: a proper member of the network, with a new identity each time. */
import * as ClusterKeyFile from "@spegel-ts/cluster-key/ClusterKeyFile"
import * as PeerAuth from "@spegel-ts/cluster-key/PeerAuth"
import * as Bootstrap from "@spegel-ts/router/Bootstrap"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import { Identity } from "@spegel-ts/router/Identity"
import * as Libp2p from "@spegel-ts/router/Libp2p"
import { Router } from "@spegel-ts/router/Router"
import { Context, Effect, Exit, Layer, Option, Result, Schedule, Scope, Stream } from "effect"
import { readFile } from "node:fs/promises"
import { join } from "node:path"
import * as AnswerSignature from "./AnswerSignature.ts"
import { FaultServer, type Happenings, type Misbehaviour } from "./FaultServer.ts"

export interface FaultPeerOptions {
  /** The peer's address, with both of its ports. */
  readonly host: string
  readonly routerPort: number
  readonly registryPort: number
  /** Routers of other peers, as `IP:port`. */
  readonly bootstrap: ReadonlyArray<string>
  /** Image layout whose blobs are served. */
  readonly layout: string
  /** The image's name with registry and tag, which is advertised as well as the digests. */
  readonly name: string
  /** The image, manifest first. */
  readonly objects: ReadonlyArray<{ readonly digest: string; readonly mediaType: string }>
  readonly misbehaviour?: Misbehaviour | undefined
  /** The file of the cluster key. Without it, nobody proves anything. */
  readonly keyFile?: string | undefined
  readonly happenings: Happenings
}

const bytesOf = (layout: string, digest: string) =>
  Effect.promise(() => readFile(join(layout, "blobs", "sha256", digest.replace("sha256:", ""))))

/** Joins with a new identity and advertises the image; ends when others can find it. */
export const start = Effect.fnUntraced(function*(options: FaultPeerOptions) {
  const { happenings, host, keyFile, layout, misbehaviour, objects } = options
  const ring = keyFile === undefined ? undefined : yield* ClusterKeyFile.load(keyFile)
  const served = yield* Effect.forEach(
    objects,
    (object) => Effect.map(bytesOf(layout, object.digest), (bytes) => ({ ...object, bytes }))
  )
  const server = new FaultServer({
    host,
    port: options.registryPort,
    objects: served,
    misbehaviour,
    happenings,
    ...(ring === undefined ? {} : { sign: AnswerSignature.signer(ring) })
  })
  yield* Effect.acquireRelease(Effect.promise(() => server.start()), () => Effect.sync(() => server.stop()))

  const scope = yield* Scope.make()
  yield* Effect.addFinalizer(() => Scope.close(scope, Exit.void))
  const context = yield* Layer.buildWithScope(
    Layer.fresh(
      Libp2p.layer({
        host: Option.some(host),
        port: options.routerPort,
        servicePort: options.registryPort
      }).pipe(
        Layer.provide(Bootstrap.layer(Result.getOrThrow(Bootstrap.fromStatic(options.bootstrap)))),
        Layer.provide(Identity.layerMemory),
        Layer.provide(ring === undefined ? Layer.empty : PeerAuth.layer({ mode: "require", ring }))
      )
    ),
    scope
  )
  const router = Context.get(context, Router)
  const keys = [options.name, ...objects.map(({ digest }) => digest)].map(ContentKey.make)
  yield* router.advertise(keys).pipe(Effect.retry({ schedule: Schedule.spaced("20 millis"), times: 500 }))
  return {
    counts: Effect.sync(() => server.counts),
    /** Waits until this peer finds `providers` other holders of everything that it has. */
    untilFound: (providers: number) =>
      Effect.forEach(keys, (key) =>
        Stream.runCollect(router.lookup(key, { count: providers })).pipe(
          Effect.filterOrFail((found) => found.length >= providers, (found) => `${key}: ${found.length} providers`),
          Effect.retry({ schedule: Schedule.spaced("20 millis"), times: 500 })
        ), { discard: true })
  }
})

export type FaultPeer = Effect.Success<ReturnType<typeof start>>
