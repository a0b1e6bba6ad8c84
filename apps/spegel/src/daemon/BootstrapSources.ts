/** The sources of first peers that the settings ask for. */
import { Identity as LeaseIdentity, LeaderElection } from "@spegel-ts/leader-election/LeaderElection"
import * as Bootstrap from "@spegel-ts/router/Bootstrap"
import type { Identity } from "@spegel-ts/router/Identity"
import * as PeerAddress from "@spegel-ts/router/PeerAddress"
import * as SelfAddress from "@spegel-ts/router/SelfAddress"
import { Context, Effect, Layer, Option, type Scope } from "effect"
import { existsSync } from "node:fs"
import type { BlockList } from "node:net"
import { join } from "node:path"
import type { ListenAddress } from "../cli/ListenAddress.ts"
import type { BootstrapKind, BootstrapSettings } from "../settings/BootstrapSettings.ts"
import { SettingsInvalid } from "../settings/SettingsInvalid.ts"
import * as BootstrapCertificates from "./BootstrapCertificates.ts"

/** The certificate files of kind http. A file that is named itself has precedence over one in the directory. */
export const tlsFiles = (settings: BootstrapSettings): BootstrapCertificates.TlsFiles => {
  const inDirectory = (name: string) =>
    settings.httpBootstrapCertDir.pipe(Option.map((directory) => join(directory, name)), Option.filter(existsSync))
  const choose = (file: Option.Option<string>, name: string) =>
    Option.getOrUndefined(Option.orElse(file, () => inDirectory(name)))
  return {
    ca: choose(settings.httpBootstrapCaFile, "ca.crt"),
    cert: choose(settings.httpBootstrapCertFile, "tls.crt"),
    key: choose(settings.httpBootstrapKeyFile, "tls.key")
  }
}

interface Settings extends BootstrapSettings {
  readonly routerAddr: ListenAddress
  readonly peerCidrs: BlockList | undefined
}

/** A source, once the identity is known; kind kubernetes takes part in the election while the scope is open. */
type SourceEffect = Effect.Effect<Bootstrap.Source, SelfAddress.NoUsableAddress, Scope.Scope | Identity>

const needs = (flag: string, kind: BootstrapKind) =>
  new SettingsInvalid({ flag, reason: `is needed for the bootstrap kind ${kind}` })

const dns = Effect.fnUntraced(function*({ dnsBootstrapDomain, routerAddr }: Settings) {
  if (Option.isNone(dnsBootstrapDomain)) return yield* needs("dns-bootstrap-domain", "dns")
  return Effect.succeed(Bootstrap.fromDns({ name: dnsBootstrapDomain.value, port: routerAddr.port }))
})

/** The URL of kind http, under either of its names. */
const urlOf = Effect.fnUntraced(function*({ httpBootstrapPeer: peer, httpBootstrapUrl: url }: Settings) {
  if (Option.exists(peer, ({ href }) => Option.exists(url, (other) => other.href !== href))) {
    return yield* new SettingsInvalid({ flag: "http-bootstrap-url", reason: "contradicts --http-bootstrap-peer" })
  }
  return yield* Effect.fromOption(Option.orElse(peer, () => url)).pipe(
    Effect.mapError(() => needs("http-bootstrap-peer", "http"))
  )
})

const http = Effect.fnUntraced(function*(settings: Settings) {
  const url = yield* urlOf(settings)
  const tls = tlsFiles(settings)
  if ((tls.cert === undefined) !== (tls.key === undefined)) {
    return yield* Option.isSome(settings.httpBootstrapCertDir)
      ? new SettingsInvalid({
        flag: "http-bootstrap-cert-dir",
        reason: `${settings.httpBootstrapCertDir.value} needs both tls.crt and tls.key, or neither`
      })
      : new SettingsInvalid({
        flag: "http-bootstrap-cert-file",
        reason: "goes together with --http-bootstrap-key-file"
      })
  }
  return Effect.succeed(Bootstrap.fromHttp({ url, client: BootstrapCertificates.httpClient(tls) }))
})

/** Loads its module only when it is used: TLS takes memory. */
const kubernetes = Effect.fnUntraced(function*(settings: Settings) {
  const { peerCidrs, routerAddr } = settings
  const self = yield* SelfAddress.make({ ...routerAddr, peerCidrs })
  const KubernetesLease = yield* Effect.promise(() => import("@spegel-ts/leader-election/KubernetesLease"))
  const election = KubernetesLease.layer({
    namespace: settings.leaderElectionNamespace,
    name: settings.leaderElectionName,
    kubeconfig: settings.kubeconfigPath,
    environment: process.env,
    identity: LeaseIdentity.make(self)
  })
  // It fails only if durations of one's own do not fit together.
  const services = yield* Layer.build(Layer.orDie(election))
  return Bootstrap.fromLeader(Context.get(services, LeaderElection), {
    self,
    usable: { loopback: Option.exists(routerAddr.host, PeerAddress.isLoopback), within: peerCidrs }
  })
})

const fixed = Effect.fnUntraced(function*({ staticBootstrapPeers }: Settings) {
  if (staticBootstrapPeers.length === 0) {
    yield* Effect.logInfo("no --static-bootstrap-peers are given: this node is the first and waits to be found")
  }
  return Effect.succeed(yield* Effect.fromResult(Bootstrap.fromStatic(staticBootstrapPeers)))
})

const sourceOf = (settings: Settings) =>
  Effect.fnUntraced(function*(kind: BootstrapKind) {
    switch (kind) {
      case "dns":
        return yield* dns(settings)
      case "http":
        return yield* http(settings)
      case "kubernetes":
        return kubernetes(settings)
      case "static":
        return yield* fixed(settings)
    }
  })

/** All sources that are asked for, as one layer; fails with `SettingsInvalid` before anything starts. */
export const layer = Effect.fnUntraced(function*(settings: Settings) {
  const sources: ReadonlyArray<SourceEffect> = yield* Effect.forEach(
    new Set(settings.bootstrapKind),
    sourceOf(settings)
  )
  if (sources.length === 0) {
    yield* Effect.logWarning("no --bootstrap-kind is set: this node finds no peers by itself and waits to be found")
  }
  return Layer.effect(Bootstrap.Bootstrap, Effect.map(Effect.all(sources), Bootstrap.merge))
})
