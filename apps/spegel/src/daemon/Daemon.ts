/** What `spegel registry` runs: store, router, tracker and registry, composed, with their two listeners. */
import * as Background from "@spegel-ts/background/Background"
import { ContainerdClient } from "@spegel-ts/containerd/ContainerdClient"
import * as ContainerdStore from "@spegel-ts/containerd/ContainerdStore"
import * as OciLayout from "@spegel-ts/content/OciLayout"
import * as OciLayoutWriter from "@spegel-ts/content/OciLayoutWriter"
import type { NodeTaintOptions } from "@spegel-ts/kubernetes/NodeTaint"
import type { RegistryFilter } from "@spegel-ts/oci/RegistryFilter"
import * as HttpListener from "@spegel-ts/registry/HttpListener"
import { PullLog } from "@spegel-ts/registry/PullLog"
import * as PullSpans from "@spegel-ts/registry/PullSpans"
import { Registry, whenCrowded } from "@spegel-ts/registry/Registry"
import type { Bootstrap } from "@spegel-ts/router/Bootstrap"
import * as HttpDocument from "@spegel-ts/router/HttpDocument"
import { Identity, isKept, type Owner } from "@spegel-ts/router/Identity"
import * as Libp2p from "@spegel-ts/router/Libp2p"
import { Router } from "@spegel-ts/router/Router"
import type { NoUsableAddress } from "@spegel-ts/router/SelfAddress"
import { StateTracker } from "@spegel-ts/state-tracker/StateTracker"
import * as BuildInfo from "@spegel-ts/telemetry/BuildInfo"
import { MetricsEndpoint } from "@spegel-ts/telemetry/MetricsEndpoint"
import * as Tracing from "@spegel-ts/telemetry/Tracing"
import type { DataPlaneChoice } from "@spegel-ts/transfer/DataPlane"
import { PeerTransport } from "@spegel-ts/transfer/PeerTransport"
import { Transfer } from "@spegel-ts/transfer/Transfer"
import { Duration, Effect, Layer, Option } from "effect"
import type { BlockList } from "node:net"
import { hostname } from "node:os"
import * as BasicAuthFiles from "../cli/BasicAuthFiles.ts"
import { type ListenAddress, print } from "../cli/ListenAddress.ts"
import * as MirrorFlags from "../cli/MirrorFlags.ts"
import { ContainerdFaults } from "../containerd/ContainerdFaults.ts"
import { version } from "../Version.ts"
import * as AdminHandler from "./AdminHandler.ts"
import * as BootstrapHandler from "./BootstrapHandler.ts"
import * as HangUp from "./HangUp.ts"
import * as LostRuns from "./LostRuns.ts"
import * as NodeNews from "./NodeNews.ts"
import * as Retirement from "./Retirement.ts"
import * as StrayPromises from "./StrayPromises.ts"

/** Where this node's content is. */
export type StoreSettings =
  | { readonly _tag: "Containerd"; readonly socket: string; readonly namespace: string; readonly contentPath: string }
  | { readonly _tag: "OciLayout"; readonly root: string; readonly create: boolean }

export interface DaemonSettings extends MirrorFlags.MirrorSettings {
  readonly store: StoreSettings
  /** containerd's configuration file; empty where it is out of reach. */
  readonly containerdConfig: string
  /** Directory of containerd's hosts.toml files, as containerd is to be told. */
  readonly containerdRegistryConfigPath: string
  readonly registryAddr: ListenAddress
  readonly routerAddr: ListenAddress
  readonly metricsAddr: ListenAddress
  readonly dataDir: string
  /** This node, as far as it is known: whose the identity in the data directory is. */
  readonly owner: Owner
  readonly bootstrap: Layer.Layer<Bootstrap, NoUsableAddress, Identity>
  /** Where to name this node to others that bootstrap over HTTP; none where it is not used. */
  readonly bootstrapAddr: Option.Option<ListenAddress>
  /** Certificates for that. */
  readonly bootstrapTls: HttpDocument.TlsFiles
  /** Where the addresses of all peers lie; none means anywhere. */
  readonly peerCidrs: BlockList | undefined
  readonly recordTtl: Duration.Duration
  readonly recordRefresh: Duration.Duration
  readonly filter: RegistryFilter
  /** Hosts of registries that are known to be mirrored. */
  readonly mirroredRegistries: ReadonlyArray<string>
  readonly resolveTags: boolean
  readonly maxUploads: number
  readonly maxUploadsPerPeer: number
  readonly maxBodyMemory: number
  readonly dataPlane: DataPlaneChoice
  /** The taint to take off this node when the mirror is ready; none where nodes have no such taint. */
  readonly nodeTaint: Option.Option<Omit<NodeTaintOptions, "environment" | "ready">>
  readonly debugWebEnabled: boolean
  readonly basicAuthDir: string
  /** How long requests are still taken after the end has begun. */
  readonly shutdownDelay: Duration.Duration
  /** How long running requests may go on after that. */
  readonly shutdownGrace: Duration.Duration
}

const containerdStore = ({ contentPath, namespace, socket }: Extract<StoreSettings, { readonly _tag: "Containerd" }>) =>
  ContainerdStore.layer({ contentPath, contentPathSetting: "--containerd-content-path" }).pipe(
    Layer.provide(ContainerdClient.layer({ socket, socketSetting: "--containerd-sock", namespace }))
  )

const storeLayer = (store: StoreSettings) => {
  if (store._tag === "Containerd") return containerdStore(store)
  return store.create
    ? Layer.unwrap(Effect.as(OciLayoutWriter.make({ root: store.root }), OciLayout.layer({ root: store.root })))
    : OciLayout.layer({ root: store.root })
}

/** Of the listeners beside the registry's: few ask them, and for pages that are made anew each time. */
const connectionsBeside = { all: 128, ofAddress: 32 }

/**
 * Runs until interrupted. Then nobody is sent here, the port stays open for the delay, running bodies are finished within the
 * grace, and everything is closed. Another interruption changes nothing.
 */
export const run = Effect.fn("Daemon.run")(function*(settings: DaemonSettings) {
  yield* HangUp.ignored
  yield* StrayPromises.watch
  const basicAuth = yield* BasicAuthFiles.load(settings.basicAuthDir)
  const { filter, resolveTags, shutdownGrace: grace } = settings
  yield* BuildInfo.publish(version, process.versions.node)
  // Asked before the router makes the identity.
  const hasPredecessor = settings.store._tag === "Containerd" && (yield* isKept(settings.dataDir))

  const transfer = Transfer.layer({ plane: settings.dataPlane, lostRuns: LostRuns.inDirectory(settings.dataDir) })
  const transport = PeerTransport.layer(MirrorFlags.transportOptions(settings))
  const router = Libp2p.layerWithoutIdentity({
    ...settings.routerAddr,
    servicePort: settings.registryAddr.port,
    peerCidrs: settings.peerCidrs,
    recordTtl: settings.recordTtl,
    refreshInterval: settings.recordRefresh
  }).pipe(
    Layer.provide(settings.bootstrap),
    Layer.provide(Identity.layer({ dataDir: settings.dataDir, owner: settings.owner }))
  )
  const services = Layer.mergeAll(
    Registry.layer({
      ...MirrorFlags.mirrorOptions(settings, settings.recordTtl),
      resolveTags,
      filter,
      basicAuth,
      mirroredRegistries: settings.mirroredRegistries,
      maxUploads: settings.maxUploads,
      maxUploadsPerPeer: settings.maxUploadsPerPeer,
      maxBodyMemory: settings.maxBodyMemory
    }),
    StateTracker.layer({ filter })
  ).pipe(
    Layer.provideMerge(Layer.mergeAll(router, transport, PullLog.layer, ContainerdFaults.layer)),
    Layer.provideMerge(transfer),
    // The store is what is most often missing: it is asked first, before any port is taken.
    Layer.provideMerge(storeLayer(settings.store)),
    Layer.provideMerge(MetricsEndpoint.layer),
    // Closed last: it sends what the others have told it.
    Layer.provideMerge(Tracing.layer({
      environment: process.env,
      attributes: { "host.name": hostname() },
      version,
      spanNames: PullSpans.names,
      flushTimeout: Duration.min(grace, Duration.seconds(3))
    }))
  )

  return yield* Effect.gen(function*() {
    const registry = yield* Registry
    const tracker = yield* StateTracker
    yield* HttpListener.listen({
      ...settings.metricsAddr,
      handler: yield* AdminHandler.make({ debug: settings.debugWebEnabled }),
      connections: connectionsBeside,
      grace: Duration.zero
    })
    if (Option.isSome(settings.bootstrapAddr)) {
      yield* HttpListener.listen({
        ...settings.bootstrapAddr.value,
        handler: yield* BootstrapHandler.make({ routerPort: settings.routerAddr.port }),
        tls: yield* HttpDocument.serverTls(settings.bootstrapTls),
        connections: connectionsBeside,
        grace: Duration.zero
      })
    }
    yield* Effect.forkScoped(tracker.run)
    yield* HttpListener.listen({ ...settings.registryAddr, handler: registry.handler, whenCrowded, grace })
    const router = yield* Router
    yield* Effect.addFinalizer(() =>
      Retirement.retire({ delay: settings.shutdownDelay, unready: registry.retire, leave: router.leave })
    )
    const { addresses, id } = yield* router.self
    yield* Effect.logInfo("running").pipe(Effect.annotateLogs({
      id,
      addresses: addresses.join(", "),
      version,
      registry: print(settings.registryAddr),
      router: print(settings.routerAddr),
      metrics: print(settings.metricsAddr)
    }))
    yield* Background.keepRunning("news of what is advertised", NodeNews.followAdvertised(tracker.snapshot))
    yield* Background.keepRunning(
      "news of failed pulls",
      NodeNews.followFailures((yield* PullLog).events)
    )
    if (settings.store._tag === "Containerd") {
      const ContainerdWatch = yield* Effect.promise(() => import("../containerd/ContainerdWatch.ts"))
      yield* ContainerdWatch.start({
        containerd: settings.store,
        containerdConfig: settings.containerdConfig,
        configPath: settings.containerdRegistryConfigPath,
        requests: (yield* PullLog).events,
        hasPredecessor,
        ready: router.ready,
        filter
      })
    }
    if (Option.isSome(settings.nodeTaint)) {
      // Loaded only where it is used: TLS takes memory.
      const NodeTaint = yield* Effect.promise(() => import("@spegel-ts/kubernetes/NodeTaint"))
      const taint = { ...settings.nodeTaint.value, environment: process.env, ready: router.ready }
      yield* Background.untilDone("node taint", NodeTaint.removeWhenReady(taint), { maxPause: Duration.seconds(30) })
    }
    return yield* Effect.never
  }).pipe(
    Effect.scoped,
    Effect.provide(services),
    Effect.onInterrupt(() => Effect.logInfo("stopped"))
  )
}, Effect.scoped)
