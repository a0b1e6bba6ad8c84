/** Flags that say where a node finds its first peers, and the sources that they name. */
import { Identity as LeaseIdentity, LeaderElection } from "@spegel-ts/leader-election/LeaderElection"
import * as Bootstrap from "@spegel-ts/router/Bootstrap"
import type { TlsFiles } from "@spegel-ts/router/HttpDocument"
import type { Identity } from "@spegel-ts/router/Identity"
import * as PeerAddress from "@spegel-ts/router/PeerAddress"
import * as SelfAddress from "@spegel-ts/router/SelfAddress"
import { Context, Effect, Layer, Option, Result, type Scope } from "effect"
import type { Command } from "effect/cli"
import { existsSync } from "node:fs"
import type { BlockList } from "node:net"
import { join } from "node:path"
import { many, one } from "../cli/Flags.ts"
import { ListenAddress } from "../cli/ListenAddress.ts"
import { textSchema } from "../cli/TextSchema.ts"
import { SettingsInvalid } from "./shared.ts"

const kinds = ["dns", "http", "kubernetes", "static"] as const

const bootstrapKind = textSchema<typeof kinds[number]>({
  expected: "a bootstrap kind: dns, http, kubernetes or static",
  parse: (text) => Option.fromUndefinedOr(kinds.find((kind) => kind === text)),
  print: (kind) => kind
})

const bootstrapPeer = textSchema<string>({
  expected: "a peer such as /ip4/10.0.0.7/tcp/5001 or 10.0.0.7:5001",
  parse: (text) => Result.getSuccess(Bootstrap.parsePeer(text)),
  print: (peer) => peer
})

const bootstrapUrl = textSchema<Option.Option<URL>>({
  expected: "a URL without user or password, such as http://10.0.0.7:5002/id",
  parse: (text) => {
    if (text === "") return Option.some(Option.none())
    const url = URL.parse(text)
    return url !== null && /^https?:$/.test(url.protocol) && url.username === "" && url.password === ""
      ? Option.some(Option.some(url))
      : Option.none()
  },
  print: Option.match({ onNone: () => "", onSome: (url) => url.href })
})

/** Labels with dots between them: where a dot could be left out, a long name would be tried in all ways. */
const domainName = /^[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9])?)*\.?$/

const domain = textSchema<string>({
  expected: "a domain name such as spegel-bootstrap.spegel.svc.cluster.local.",
  parse: (text) => text === "" || (text.length <= 254 && domainName.test(text)) ? Option.some(text) : Option.none(),
  print: (name) => name
})

/** A name of an object or a namespace: an RFC 1123 subdomain. */
const objectName = textSchema<string>({
  expected: "a name of lower-case letters, digits, - and . such as spegel",
  parse: (text) =>
    /^[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?$/.test(text) && text.length <= 253 ? Option.some(text) : Option.none(),
  print: (name) => name
})

const optionalPath = {
  schema: textSchema<Option.Option<string>>({
    expected: "a path",
    parse: (text) => Option.some(text === "" ? Option.none() : Option.some(text)),
    print: Option.getOrElse(() => "")
  }),
  fallback: "",
  metavar: "PATH"
}

export const bootstrapFlags = {
  bootstrapKind: many({
    name: "bootstrap-kind",
    description: "Where the first peers come from: dns, http, kubernetes or static",
    schema: bootstrapKind,
    metavar: "KIND"
  }),
  dnsBootstrapDomain: one({
    name: "dns-bootstrap-domain",
    description: "Name whose addresses are peers, such as a headless service's; for the kind dns",
    schema: domain,
    fallback: "",
    metavar: "NAME"
  }),
  staticBootstrapPeers: many({
    name: "static-bootstrap-peers",
    description: "Peer as multiaddr or IP:PORT; for the kind static",
    schema: bootstrapPeer,
    metavar: "PEER"
  }),
  httpBootstrapPeer: one({
    name: "http-bootstrap-peer",
    description: "URL that lists peers, such as http://10.0.0.7:5002/id of a node; for the kind http",
    schema: bootstrapUrl,
    fallback: "",
    metavar: "URL"
  }),
  httpBootstrapUrl: one({
    name: "http-bootstrap-url",
    description: "The same; the name that later versions of Go Spegel have for it",
    schema: bootstrapUrl,
    fallback: "",
    metavar: "URL"
  }),
  httpBootstrapAddr: one({
    schema: ListenAddress,
    metavar: "[IP]:PORT",
    name: "http-bootstrap-addr",
    description: "Where to name this node to others, under /id; for the kind http",
    fallback: ":5002"
  }),
  httpBootstrapCertDir: one({
    ...optionalPath,
    metavar: "DIR",
    name: "http-bootstrap-cert-dir",
    description: "Directory of ca.crt, tls.crt and tls.key, in place of the three flags for files; each may be absent"
  }),
  httpBootstrapCaFile: one({
    ...optionalPath,
    name: "http-bootstrap-ca-file",
    description:
      "Authorities (PEM) of the certificates of --http-bootstrap-peer and of those who ask --http-bootstrap-addr"
  }),
  httpBootstrapCertFile: one({
    ...optionalPath,
    name: "http-bootstrap-cert-file",
    description: "This node's certificate (PEM), with which it asks and serves; for the kind http"
  }),
  httpBootstrapKeyFile: one({
    ...optionalPath,
    name: "http-bootstrap-key-file",
    description: "Key (PEM) of that certificate"
  }),
  leaderElectionNamespace: one({
    name: "leader-election-namespace",
    description: "Namespace of the lease; for the kind kubernetes",
    schema: objectName,
    fallback: "spegel",
    metavar: "NAME"
  }),
  leaderElectionName: one({
    name: "leader-election-name",
    description: "Name of the lease; for the kind kubernetes",
    schema: objectName,
    fallback: "spegel-leader-election",
    metavar: "NAME"
  }),
  kubeconfigPath: one({
    ...optionalPath,
    name: "kubeconfig-path",
    description: "How to reach the Kubernetes API; without it, this pod's service account"
  })
}

type Flags = Command.Command.Config.Infer<typeof bootstrapFlags>

/** The certificate files of the kind http. A file of its own flag decides over that of the directory. */
export const bootstrapTls = (flags: Flags): TlsFiles => {
  const inDirectory = (name: string) =>
    flags.httpBootstrapCertDir.pipe(Option.map((directory) => join(directory, name)), Option.filter(existsSync))
  const choose = (file: Option.Option<string>, name: string) =>
    Option.getOrUndefined(Option.orElse(file, () => inDirectory(name)))
  return {
    ca: choose(flags.httpBootstrapCaFile, "ca.crt"),
    cert: choose(flags.httpBootstrapCertFile, "tls.crt"),
    key: choose(flags.httpBootstrapKeyFile, "tls.key")
  }
}

/** The URL of the kind http, under either of its names. */
const bootstrapUrlOf = Effect.fnUntraced(function*({ httpBootstrapPeer: peer, httpBootstrapUrl: url }: Flags) {
  if (Option.exists(peer, ({ href }) => Option.exists(url, (other) => other.href !== href))) {
    return yield* new SettingsInvalid({ flag: "http-bootstrap-url", reason: "contradicts --http-bootstrap-peer" })
  }
  return Option.orElse(peer, () => url)
})

interface Settings extends Flags {
  readonly routerAddr: ListenAddress
  readonly peerCidrs: BlockList | undefined
}

/** Takes part in the election while the scope is open. Loaded only where it is used: TLS takes memory. */
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
  // It fails for times of one's own only.
  const services = yield* Layer.build(Layer.orDie(election))
  return Bootstrap.fromLeader(Context.get(services, LeaderElection), {
    self,
    usable: { loopback: Option.exists(routerAddr.host, PeerAddress.isLoopback), within: peerCidrs }
  })
})

type SourceEffect = Effect.Effect<Bootstrap.Source, SelfAddress.NoUsableAddress, Scope.Scope | Identity>

/** The sources of all kinds that are asked for; what is missing is told before anything starts. */
export const bootstrapLayer = Effect.fnUntraced(function*(settings: Settings) {
  const needs = (flag: string, kind: string) =>
    new SettingsInvalid({ flag, reason: `is needed for the bootstrap kind ${kind}` })
  const sourceOf = Effect.fnUntraced(function*(kind: typeof kinds[number]) {
    switch (kind) {
      case "dns":
        if (settings.dnsBootstrapDomain === "") return yield* needs("dns-bootstrap-domain", kind)
        return Effect.succeed(
          Bootstrap.fromDns({ name: settings.dnsBootstrapDomain, port: settings.routerAddr.port })
        )
      case "http": {
        const url = yield* bootstrapUrlOf(settings)
        if (Option.isNone(url)) return yield* needs("http-bootstrap-peer", kind)
        const tls = bootstrapTls(settings)
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
        return Effect.succeed(Bootstrap.fromHttp({ url: url.value, tls }))
      }
      case "kubernetes":
        return kubernetes(settings)
      case "static":
        if (settings.staticBootstrapPeers.length === 0) {
          yield* Effect.logInfo("no --static-bootstrap-peers are given: this node is the first, and waits to be found")
        }
        return Effect.succeed(yield* Effect.fromResult(Bootstrap.fromStatic(settings.staticBootstrapPeers)))
    }
  })
  const sources: ReadonlyArray<SourceEffect> = yield* Effect.forEach(new Set(settings.bootstrapKind), sourceOf)
  if (sources.length === 0) {
    yield* Effect.logWarning("no --bootstrap-kind is set: this node finds no peers by itself and waits to be found")
  }
  return Layer.effect(Bootstrap.Bootstrap, Effect.map(Effect.all(sources), Bootstrap.merge))
})
