import type { NamePattern } from "@spegel-ts/oci/NamePattern"
import * as RegistryFilter from "@spegel-ts/oci/RegistryFilter"
import * as Identity from "@spegel-ts/router/Identity"
import * as PeerAddress from "@spegel-ts/router/PeerAddress"
import { Duration, Effect, Option, Result } from "effect"
import { Command } from "effect/cli"
import { existsSync } from "node:fs"
import { join } from "node:path"
import { flagsOf } from "../cli/Setting.ts"
import * as BootstrapSources from "../daemon/BootstrapSources.ts"
import * as Daemon from "../daemon/Daemon.ts"
import * as NodeZone from "../daemon/NodeZone.ts"
import type { StoreSettings } from "../daemon/StoreLayer.ts"
import { type RegistrySettings, registrySettings } from "../settings/RegistrySettings.ts"
import { SettingsInvalid } from "../settings/SettingsInvalid.ts"
import { clientNameOf, peerAuthOf } from "../settings/TrustSettings.ts"

const check = Effect.fnUntraced(function*(settings: RegistrySettings) {
  if (Duration.isGreaterThanOrEqualTo(settings.recordRefresh, settings.recordTtl)) {
    return yield* new SettingsInvalid({ flag: "record-refresh", reason: "must be shorter than --record-ttl" })
  }
  if (settings.nodeReadinessTaint !== "" && settings.nodeName === "") {
    return yield* new SettingsInvalid({ flag: "node-name", reason: "is needed for --node-readiness-taint" })
  }
})

/** The images that --resolve-latest-tag=false leaves to upstream. */
const latestTag: NamePattern = { matches: (name) => name.endsWith(":latest") }

const filterOf = ({ mirroredRegistries, registryFilters, resolveLatestTag }: RegistrySettings) =>
  Effect.fromResult(RegistryFilter.make({
    mirroredRegistries,
    registryFilters: resolveLatestTag ? registryFilters : [...registryFilters, latestTag]
  }))

const storeOf = (settings: RegistrySettings): StoreSettings => {
  const fallback = () => existsSync(settings.containerdSock) ? { _tag: "Containerd" } as const : undefined
  const chosen = Option.getOrElse(settings.store, fallback)
  switch (chosen?._tag) {
    case "Containerd":
      return {
        _tag: "Containerd",
        socket: settings.containerdSock,
        namespace: settings.containerdNamespace,
        contentPath: settings.containerdContentPath
      }
    case "OciLayout":
      // A directory that was named and is not there is a mistake.
      return { ...chosen, create: false }
    case undefined:
      return { _tag: "OciLayout", root: join(settings.dataDir, "oci-layout"), create: true }
  }
}

export const registry = Command.make(
  "registry",
  flagsOf(registrySettings),
  Effect.fnUntraced(function*(settings) {
    yield* check(settings)
    const peerAuth = yield* peerAuthOf(settings)
    const { kubeconfigPath: kubeconfig, nodeName: node, nodeReadinessTaint: taint } = settings
    const filter = yield* filterOf(settings)
    const peerCidrs = yield* Effect.fromResult(PeerAddress.parseCidrs(settings.peerCidrs))
    return yield* Daemon.run({
      ...settings,
      store: storeOf(settings),
      owner: yield* Effect.promise(() => Identity.ownerOf({ nodeName: node })),
      bootstrap: yield* BootstrapSources.layer({ ...settings, peerCidrs }),
      bootstrapTls: BootstrapSources.tlsFiles(settings),
      nodeTaint: taint === "" ? Option.none() : Option.some({ taint, node, kubeconfig }),
      bootstrapAddr: settings.bootstrapKind.includes("http") ? Option.some(settings.httpBootstrapAddr) : Option.none(),
      peerCidrs,
      peerAuth,
      nodeName: clientNameOf(node),
      zone: yield* NodeZone.find(settings),
      filter,
      mirroredRegistries: yield* Effect.fromResult(
        Result.all(settings.mirroredRegistries.map((registry) => RegistryFilter.registryHost(registry)))
      )
    })
  })
).pipe(
  Command.withDescription("Run the mirror on this node"),
  Command.withExamples([
    {
      command: "spegel registry --bootstrap-kind=dns --dns-bootstrap-domain=spegel-bootstrap.spegel.svc",
      description: "In a cluster whose headless service names the other mirrors"
    },
    {
      command:
        "spegel registry --bootstrap-kind=static --static-bootstrap-peers=10.0.0.7:5001 --cluster-key-file=/etc/spegel/cluster-key",
      description: "Without Kubernetes, with one known peer"
    },
    {
      command: "spegel registry --mirrored-registries=docker.io --registry-filters=:latest$",
      description: "Share only images of Docker Hub, and let upstream serve the tag latest"
    }
  ])
)
