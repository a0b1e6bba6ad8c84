/** The mirror on a node, as `spegel registry` runs it: store, router, state tracker and registry, and their listeners. */
import * as Background from "@spegel-ts/background/Background"
import * as PeerAuth from "@spegel-ts/cluster-key/PeerAuth"
import type { NodeTaintOptions } from "@spegel-ts/kubernetes/NodeTaint"
import type { RegistryFilter } from "@spegel-ts/oci/RegistryFilter"
import * as Canary from "@spegel-ts/registry/Canary"
import * as HttpListener from "@spegel-ts/registry/HttpListener"
import { PullLog } from "@spegel-ts/registry/PullLog"
import * as PullSpans from "@spegel-ts/registry/PullSpans"
import { Registry, whenCrowded } from "@spegel-ts/registry/Registry"
import type { Bootstrap } from "@spegel-ts/router/Bootstrap"
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
import { ContainerdFaults } from "../containerd/ContainerdFaults.ts"
import { mirrorOptions, type MirrorSettings, transportOptions } from "../settings/MirrorSettings.ts"
import type { PeerAuthChoice } from "../settings/TrustSettings.ts"
import { version } from "../Version.ts"
import * as AdminHandler from "./AdminHandler.ts"
import * as BootstrapCertificates from "./BootstrapCertificates.ts"
import * as BootstrapHandler from "./BootstrapHandler.ts"
import * as HangUp from "./HangUp.ts"
import * as LostRuns from "./LostRuns.ts"
import * as NodeNews from "./NodeNews.ts"
import * as Retirement from "./Retirement.ts"
import * as StoreLayer from "./StoreLayer.ts"
import * as StrayPromises from "./StrayPromises.ts"

export interface DaemonSettings extends MirrorSettings {
  readonly store: StoreLayer.StoreSettings
  /** containerd's configuration file; empty if it is out of reach. */
  readonly containerdConfig: string
  /** Directory of containerd's hosts.toml files, as containerd's configuration should name it. */
  readonly containerdRegistryConfigPath: string
  readonly registryAddr: ListenAddress
  readonly routerAddr: ListenAddress
  readonly metricsAddr: ListenAddress
  readonly dataDir: string
  /** This node, as far as it is known: the owner of the identity in the data directory. */
  readonly owner: Owner
  readonly bootstrap: Layer.Layer<Bootstrap, NoUsableAddress, Identity>
  /** Where to tell other nodes about this one over HTTP; none if no node bootstraps that way. */
  readonly bootstrapAddr: Option.Option<ListenAddress>
  /** Certificates for that listener. */
  readonly bootstrapTls: BootstrapCertificates.TlsFiles
  /** The ranges of all peers' addresses; undefined means anywhere. */
  readonly peerCidrs: BlockList | undefined
  /** How this node treats peers and clients that do not prove that they know the cluster key. */
  readonly peerAuth: PeerAuthChoice
  /** The name of this node, which the token of its own containerd has. */
  readonly nodeName: string
  /** Peers of this zone are asked first; undefined if this node's is not known. */
  readonly zone: string | undefined
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
  /** The taint to remove from this node once the mirror is ready; none if nodes have no such taint. */
  readonly nodeTaint: Option.Option<Omit<NodeTaintOptions, "environment" | "ready">>
  readonly debugWebEnabled: boolean
  /** Whether the debug pages take CPU profiles. */
  readonly debugProfile: boolean
  readonly basicAuthDir: string
  /** How long to accept requests after the end has begun. */
  readonly shutdownDelay: Duration.Duration
  /** How long running requests may continue after that. */
  readonly shutdownGrace: Duration.Duration
}

const routerLayer = (settings: DaemonSettings) =>
  Libp2p.layer({
    ...settings.routerAddr,
    servicePort: settings.registryAddr.port,
    peerCidrs: settings.peerCidrs,
    recordTtl: settings.recordTtl,
    refreshInterval: settings.recordRefresh,
    zone: settings.zone
  }).pipe(
    Layer.provide(settings.bootstrap),
    Layer.provide(Identity.layer({ dataDir: settings.dataDir, owner: settings.owner }))
  )

const registryLayer = (settings: DaemonSettings, basicAuth: Option.Option<BasicAuthFiles.Credentials>) =>
  Registry.layer({
    ...mirrorOptions(settings, settings.recordTtl),
    resolveTags: settings.resolveTags,
    filter: settings.filter,
    basicAuth,
    nodeName: settings.nodeName,
    mirroredRegistries: settings.mirroredRegistries,
    maxUploads: settings.maxUploads,
    maxUploadsPerPeer: settings.maxUploadsPerPeer,
    maxBodyMemory: settings.maxBodyMemory
  })

const peerAuthLayer = ({ peerAuth }: DaemonSettings) =>
  peerAuth.mode === "off" ? Layer.empty : PeerAuth.layerFile(peerAuth)

/** How long the last traces may take to be sent at the end. */
const maxTraceFlush = Duration.seconds(3)

/** Everything that the daemon runs. A layer further down starts earlier, and closes later. */
const servicesLayer = (settings: DaemonSettings, basicAuth: Option.Option<BasicAuthFiles.Credentials>) =>
  Layer.mergeAll(
    registryLayer(settings, basicAuth),
    StateTracker.layer({ filter: settings.filter, isPrivate: Canary.isCanary })
  ).pipe(
    Layer.provideMerge(Layer.mergeAll(
      routerLayer(settings),
      PeerTransport.layer(transportOptions(settings)),
      PullLog.layer,
      ContainerdFaults.layer
    )),
    Layer.provideMerge(
      Transfer.layer({ plane: settings.dataPlane, lostRuns: LostRuns.inDirectory(settings.dataDir) })
    ),
    // The store is missing more often than anything else: it is opened before any port.
    Layer.provideMerge(StoreLayer.layer(settings.store)),
    Layer.provideMerge(peerAuthLayer(settings)),
    Layer.provideMerge(MetricsEndpoint.layer),
    // Closed last, since it sends the spans of all others.
    Layer.provideMerge(Tracing.layer({
      environment: process.env,
      attributes: { "host.name": hostname() },
      version,
      spanNames: PullSpans.names,
      flushTimeout: Duration.min(settings.shutdownGrace, maxTraceFlush)
    }))
  )

/** For the listeners other than the registry's, which have few clients and make each page anew. */
const adminConnections = { all: 128, ofAddress: 32 }

const listen = Effect.fnUntraced(function*(settings: DaemonSettings) {
  yield* HttpListener.listen({
    ...settings.metricsAddr,
    handler: yield* AdminHandler.make({ debug: settings.debugWebEnabled, profile: settings.debugProfile }),
    connections: adminConnections,
    grace: Duration.zero
  })
  if (Option.isSome(settings.bootstrapAddr)) {
    yield* HttpListener.listen({
      ...settings.bootstrapAddr.value,
      handler: yield* BootstrapHandler.make({ routerPort: settings.routerAddr.port }),
      tls: yield* BootstrapCertificates.serverTls(settings.bootstrapTls),
      connections: adminConnections,
      grace: Duration.zero
    })
  }
  yield* Effect.forkScoped((yield* StateTracker).run)
  const { handler } = yield* Registry
  yield* HttpListener.listen({ ...settings.registryAddr, handler, whenCrowded, grace: settings.shutdownGrace })
})

const noProof =
  "peer auth is off: whoever reaches the router port is a peer and may say which image a tag means, and whoever reaches the " +
  "registry port may read all images; --cluster-key-file with --peer-auth=require changes that"

const logRunning = Effect.fnUntraced(function*(settings: DaemonSettings) {
  const { addresses, id } = yield* (yield* Router).self
  if (settings.peerAuth.mode === "off") yield* Effect.logWarning(noProof)
  yield* Effect.logInfo("running").pipe(Effect.annotateLogs({
    id,
    addresses: addresses.join(", "),
    version,
    peerAuth: settings.peerAuth.mode,
    registry: print(settings.registryAddr),
    router: print(settings.routerAddr),
    metrics: print(settings.metricsAddr)
  }))
})

/** Loads its module only when there is a containerd: it brings a TOML parser. */
const watchContainerd = Effect.fnUntraced(function*(settings: DaemonSettings, hasPredecessor: boolean) {
  if (settings.store._tag !== "Containerd") return
  const ContainerdWatch = yield* Effect.promise(() => import("../containerd/ContainerdWatch.ts"))
  yield* ContainerdWatch.start({
    containerd: settings.store,
    containerdConfig: settings.containerdConfig,
    configPath: settings.containerdRegistryConfigPath,
    requests: (yield* PullLog).events,
    hasPredecessor,
    ready: (yield* Router).ready,
    filter: settings.filter
  })
})

/** Loads its module only when it is used: TLS takes memory. */
const removeTaint = Effect.fnUntraced(function*({ nodeTaint }: DaemonSettings) {
  if (Option.isNone(nodeTaint)) return
  const NodeTaint = yield* Effect.promise(() => import("@spegel-ts/kubernetes/NodeTaint"))
  const taint = { ...nodeTaint.value, environment: process.env, ready: (yield* Router).ready }
  yield* Background.untilDone("node taint", NodeTaint.removeWhenReady(taint), { maxPause: Duration.seconds(30) })
})

const runServices = Effect.fnUntraced(function*(settings: DaemonSettings, hasPredecessor: boolean) {
  yield* listen(settings)
  const { retire } = yield* Registry
  const { leave } = yield* Router
  yield* Effect.addFinalizer(() => Retirement.retire({ delay: settings.shutdownDelay, unready: retire, leave }))
  yield* logRunning(settings)
  const { snapshot } = yield* StateTracker
  const { events } = yield* PullLog
  yield* Background.keepRunning("news of what is advertised", NodeNews.followAdvertised(snapshot))
  yield* Background.keepRunning("news of failed pulls", NodeNews.followFailures(events))
  yield* watchContainerd(settings, hasPredecessor)
  yield* removeTaint(settings)
  return yield* Effect.never
}, Effect.scoped)

/**
 * Runs until interrupted, and then stops in order: the mirror says that it is not ready, its port stays open for the shutdown
 * delay, bodies that are being sent may end within the grace, and everything is closed. Another interruption changes nothing.
 * Fails before it serves anything if the store, a port or the credentials cannot be used.
 */
export const run = Effect.fn("Daemon.run")(function*(settings: DaemonSettings) {
  yield* HangUp.ignored
  yield* StrayPromises.watch
  const basicAuth = yield* BasicAuthFiles.load(settings.basicAuthDir)
  yield* BuildInfo.publish(version, process.versions.node)
  // Looked up before the router makes the identity.
  const hasPredecessor = settings.store._tag === "Containerd" && (yield* isKept(settings.dataDir))
  return yield* runServices(settings, hasPredecessor).pipe(
    Effect.provide(servicesLayer(settings, basicAuth)),
    Effect.onInterrupt(() => Effect.logInfo("stopped"))
  )
}, Effect.scoped)
