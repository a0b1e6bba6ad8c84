import { ContentStore, type Ingest } from "@spegel-ts/content/ContentStore"
import { MemoryContent } from "@spegel-ts/content/MemoryStore"
import * as MemoryStore from "@spegel-ts/content/MemoryStore"
import * as HttpListener from "@spegel-ts/registry/HttpListener"
import type { PlaceLimits } from "@spegel-ts/registry/internal/listen/ConnectionPlaces"
import { PullLog } from "@spegel-ts/registry/PullLog"
import { defaults, Registry, type RegistryOptions, whenCrowded } from "@spegel-ts/registry/Registry"
import { type MemoryNetwork, Router } from "@spegel-ts/router/Router"
import { PeerTransport } from "@spegel-ts/transfer/PeerTransport"
import { Transfer } from "@spegel-ts/transfer/Transfer"
import { Context, Duration, Effect, Layer, Option, Random, Stream } from "effect"

/** A mirror on a real socket, with content in memory and a router shared with other test nodes. */
export const startNode = Effect.fnUntraced(function*(
  network: MemoryNetwork,
  address: string,
  options?: Partial<RegistryOptions> & {
    readonly stallTimeout?: Duration.Duration
    readonly connections?: PlaceLimits
    /** Whether peers and clients prove themselves, and the keys. By default nobody does. */
    readonly auth?: Layer.Layer<never>
    /** Whether the node has proved the cluster key to the others, as their routers say. */
    readonly proved?: boolean
    /** The downloads of its containerd. */
    readonly ingests?: Iterable<Ingest>
    /** How a download's file is opened. */
    readonly openIngest?: ContentStore["Service"]["openIngest"]
  }
) {
  let port = 0
  const self = {
    id: `node-${address}`,
    addresses: [address],
    ...(options?.proved === undefined ? {} : { proved: options.proved }),
    // Known once it listens.
    get servicePort() {
      return port
    }
  }
  const discarded: Array<string> = []
  const context = yield* Layer.build(Layer.fresh(
    Registry.layer({ ...defaults, ...patient, ...options }).pipe(
      Layer.provide(downloading({ ...options, discarded })),
      Layer.provideMerge(Layer.mergeAll(
        MemoryStore.layer,
        Router.layerMemory({ network, self }),
        PeerTransport.layer({ stallTimeout: options?.stallTimeout ?? Duration.seconds(30), minPeerSpeed: 0 }),
        PullLog.layer
      )),
      Layer.provide(Transfer.layerPortable),
      Layer.provide(options?.auth ?? Layer.empty)
    )
  ))
  const listener = yield* HttpListener.listen({
    host: Option.some(address),
    port: 0,
    handler: Context.get(context, Registry).handler,
    whenCrowded,
    ...(options?.connections === undefined ? {} : { connections: options.connections }),
    grace: Duration.seconds(1)
  }).pipe(Effect.provideService(Random.Random, firstOfAll))
  port = listener.port
  return {
    id: self.id,
    url: `http://${address}:${port}`,
    address,
    port,
    retire: Context.get(context, Registry).retire,
    activity: Context.get(context, Registry).activity,
    content: Context.get(context, MemoryContent),
    /** The refs of downloads that were discarded. */
    discarded,
    router: Context.get(context, Router),
    log: Context.get(context, PullLog)
  }
})

/** No time limit is met by a machine that is slow. */
const patient = {
  resolveTimeout: Duration.seconds(30),
  firstByteTimeout: Duration.seconds(30),
  answerTimeout: Duration.seconds(30)
}

const downloading = ({ discarded, ingests = [], openIngest }: {
  readonly ingests?: Iterable<Ingest>
  readonly openIngest?: ContentStore["Service"]["openIngest"]
  readonly discarded: Array<string>
}) =>
  Layer.effect(
    ContentStore,
    Effect.map(ContentStore, (store) => ({
      ...store,
      inProgress: Stream.suspend(() => Stream.fromIterable(ingests)),
      openIngest: openIngest ?? store.openIngest,
      discard: ({ ref }) => Effect.sync(() => discarded.push(ref))
    }))
  )

/** Makes the peer named first be asked first, among those that are equally busy. */
const firstOfAll: typeof Random.Random.Service = { nextDoubleUnsafe: () => 0, nextIntUnsafe: () => 0 }
