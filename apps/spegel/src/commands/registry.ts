import * as RegistryFilter from "@spegel-ts/oci/RegistryFilter"
import * as Bootstrap from "@spegel-ts/router/Bootstrap"
import * as PeerAddress from "@spegel-ts/router/PeerAddress"
import { Data, Duration, Effect, Option, Result, Schema } from "effect"
import { Command } from "effect/cli"
import { existsSync } from "node:fs"
import { join } from "node:path"
import * as Daemon from "../Daemon.ts"
import { many, one, onOff, textSchema } from "../Flags.ts"
import { GoDuration } from "../GoDuration.ts"
import { ListenAddress } from "../ListenAddress.ts"
import { containerdRegistryConfigPath, dataDir, mirroredRegistries } from "./shared.ts"

/** Flags that do not fit together. */
export class SettingsInvalid extends Data.TaggedError("SettingsInvalid")<{
  readonly flag: string
  readonly reason: string
}> {
  override get message() {
    return `--${this.flag}: ${this.reason}`
  }
}

const path = Schema.NonEmptyString
const address = { schema: ListenAddress, metavar: "[IP]:PORT" }
const duration = { schema: GoDuration, metavar: "DURATION" }

const store = textSchema<Option.Option<string>>({
  expected: "containerd or oci-layout:DIR",
  parse: (text) => {
    if (text === "containerd") return Option.some(Option.none())
    const root = /^oci-layout:(.+)$/.exec(text)?.[1]
    return root === undefined ? Option.none() : Option.some(Option.some(root))
  },
  print: Option.match({ onNone: () => "containerd", onSome: (root) => `oci-layout:${root}` })
})
const storeOrDefault = textSchema<Option.Option<Option.Option<string>>>({
  expected: "containerd or oci-layout:DIR",
  parse: (text) => text === "" ? Option.some(Option.none()) : Option.map(Schema.decodeOption(store)(text), Option.some),
  print: Option.match({ onNone: () => "", onSome: (value) => Schema.encodeSync(store)(value) })
})

const regularExpression = textSchema<RegExp>({
  expected: "a regular expression such as :latest$",
  parse: (text) => {
    try {
      return Option.some(new RegExp(text, "u"))
    } catch {
      return Option.none()
    }
  },
  print: (expression) => expression.source
})

const retries = textSchema<number>({
  expected: "a number of peers from 1 to 100",
  parse: (text) =>
    /^\d{1,3}$/.test(text) && Number(text) >= 1 && Number(text) <= 100 ? Option.some(Number(text)) : Option.none(),
  print: String
})

const bytes = textSchema<number>({
  expected: "a number of bytes such as 524288",
  parse: (text) => /^\d{1,12}$/.test(text) ? Option.some(Number(text)) : Option.none(),
  print: String
})

const bootstrapKind = textSchema<"dns" | "http" | "static">({
  expected: "a bootstrap kind: dns, http or static",
  parse: (text) => text === "dns" || text === "http" || text === "static" ? Option.some(text) : Option.none(),
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

const cidr = textSchema<string>({
  expected: "a range of addresses such as 10.0.0.0/8 or fd00::/8",
  parse: (text) => Result.isSuccess(PeerAddress.parseCidrs([text])) ? Option.some(text) : Option.none(),
  print: (text) => text
})

const domain = textSchema<string>({
  expected: "a domain name such as spegel-bootstrap.spegel.svc.cluster.local.",
  parse: (text) =>
    /^(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9])?\.?)*$/.test(text) && text.length <= 254
      ? Option.some(text)
      : Option.none(),
  print: (name) => name
})

const flags = {
  registryAddr: one({
    ...address,
    name: "registry-addr",
    environment: "REGISTRY_ADDR",
    description: "Where to serve images to containerd and to peers",
    fallback: ":5000"
  }),
  routerAddr: one({
    ...address,
    name: "router-addr",
    environment: "ROUTER_ADDR",
    description: "Where to talk to peers about who has what",
    fallback: ":5001"
  }),
  metricsAddr: one({
    ...address,
    name: "metrics-addr",
    environment: "METRICS_ADDR",
    description: "Where to serve metrics and debug pages",
    fallback: ":9090"
  }),
  store: one({
    name: "store",
    environment: "STORE",
    description:
      "Where this node's images are: containerd, or oci-layout:DIR. Default: containerd where its socket exists, else an image layout in the data directory",
    schema: storeOrDefault,
    fallback: "",
    metavar: "STORE"
  }),
  containerdSock: one({
    name: "containerd-sock",
    environment: "CONTAINERD_SOCK",
    description: "containerd's socket",
    schema: path,
    fallback: "/run/containerd/containerd.sock",
    metavar: "PATH"
  }),
  containerdNamespace: one({
    name: "containerd-namespace",
    environment: "CONTAINERD_NAMESPACE",
    description: "containerd's namespace of the images",
    schema: path,
    fallback: "k8s.io",
    metavar: "NAME"
  }),
  containerdContentPath: one({
    name: "containerd-content-path",
    environment: "CONTAINERD_CONTENT_PATH",
    description: "containerd's content directory",
    schema: path,
    fallback: "/var/lib/containerd/io.containerd.content.v1.content",
    metavar: "DIR"
  }),
  containerdRegistryConfigPath,
  dataDir,
  mirroredRegistries,
  registryFilters: many({
    name: "registry-filters",
    environment: "REGISTRY_FILTERS",
    description: "Regular expression; images whose registry/repository:tag matches are left to upstream",
    schema: regularExpression,
    metavar: "REGEXP"
  }),
  resolveTags: onOff({
    name: "resolve-tags",
    environment: "RESOLVE_TAGS",
    description: "Ask peers for tags too, not for digests only",
    fallback: true
  }),
  resolveLatestTag: onOff({
    name: "resolve-latest-tag",
    environment: "RESOLVE_LATEST_TAG",
    description: "Deprecated: false is --registry-filters=:latest$",
    fallback: true
  }),
  mirrorResolveTimeout: one({
    ...duration,
    name: "mirror-resolve-timeout",
    environment: "MIRROR_RESOLVE_TIMEOUT",
    description: "How long to look for a peer before containerd is sent on to upstream",
    fallback: "20ms"
  }),
  mirrorResolveRetries: one({
    name: "mirror-resolve-retries",
    environment: "MIRROR_RESOLVE_RETRIES",
    description: "How many peers to try for one request",
    schema: retries,
    fallback: "3",
    metavar: "NUMBER"
  }),
  mirrorStallTimeout: one({
    ...duration,
    name: "mirror-stall-timeout",
    environment: "MIRROR_STALL_TIMEOUT",
    description: "How long a peer may send nothing in the middle of a layer before another goes on",
    fallback: "2s"
  }),
  mirrorMinSpeed: one({
    name: "mirror-min-speed",
    environment: "MIRROR_MIN_SPEED",
    description: "Bytes per second that a peer must send over 3 s of being waited for, else another goes on; 0 for any",
    schema: bytes,
    fallback: "524288",
    metavar: "BYTES"
  }),
  bootstrapKind: many({
    name: "bootstrap-kind",
    environment: "BOOTSTRAP_KIND",
    description: "Where the first peers come from: dns, http or static",
    schema: bootstrapKind,
    metavar: "KIND"
  }),
  dnsBootstrapDomain: one({
    name: "dns-bootstrap-domain",
    environment: "DNS_BOOTSTRAP_DOMAIN",
    description: "Name whose addresses are peers, such as a headless service's; for the kind dns",
    schema: domain,
    fallback: "",
    metavar: "NAME"
  }),
  staticBootstrapPeers: many({
    name: "static-bootstrap-peers",
    environment: "STATIC_BOOTSTRAP_PEERS",
    description: "Peer as multiaddr or IP:PORT; for the kind static",
    schema: bootstrapPeer,
    metavar: "PEER"
  }),
  httpBootstrapPeer: one({
    name: "http-bootstrap-peer",
    environment: "HTTP_BOOTSTRAP_PEER",
    description: "URL that lists peers, such as http://10.0.0.7:5002/id of a node; for the kind http",
    schema: bootstrapUrl,
    fallback: "",
    metavar: "URL"
  }),
  httpBootstrapAddr: one({
    ...address,
    name: "http-bootstrap-addr",
    environment: "HTTP_BOOTSTRAP_ADDR",
    description: "Where to name this node to others, under /id; for the kind http",
    fallback: ":5002"
  }),
  peerCidrs: many({
    name: "peer-cidrs",
    environment: "PEER_CIDRS",
    description: "Range in which the addresses of all peers lie; others that peers claim are not believed",
    schema: cidr,
    metavar: "CIDR"
  }),
  recordTtl: one({
    ...duration,
    name: "record-ttl",
    environment: "RECORD_TTL",
    description: "How long what a peer says it holds is believed, where it is not said again",
    fallback: "10m"
  }),
  recordRefresh: one({
    ...duration,
    name: "record-refresh",
    environment: "RECORD_REFRESH",
    description: "How often this node says again what it holds; less than the peers' --record-ttl",
    fallback: "9m"
  }),
  debugWebEnabled: onOff({
    name: "debug-web-enabled",
    environment: "DEBUG_WEB_ENABLED",
    description: "Serve debug pages on the metrics address",
    fallback: true
  }),
  basicAuthDir: one({
    name: "basic-auth-dir",
    environment: "BASIC_AUTH_DIR",
    description: "Directory of the files username and password, which clients must then give",
    schema: path,
    fallback: "/etc/secrets/basic-auth",
    metavar: "DIR"
  }),
  shutdownGrace: one({
    ...duration,
    name: "shutdown-grace",
    environment: "SHUTDOWN_GRACE",
    description: "How long running requests may go on at shutdown",
    fallback: "20s"
  })
}

type Flags = Command.Command.Config.Infer<typeof flags>

const storeSettings = (flags: Flags): Daemon.StoreSettings => {
  const chosen = flags.store
  const containerd = Option.isSome(chosen) ? Option.isNone(chosen.value) : existsSync(flags.containerdSock)
  if (containerd) {
    return {
      _tag: "Containerd",
      socket: flags.containerdSock,
      namespace: flags.containerdNamespace,
      contentPath: flags.containerdContentPath
    }
  }
  const named = Option.flatten(chosen)
  return {
    _tag: "OciLayout",
    root: Option.getOrElse(named, () => join(flags.dataDir, "oci-layout")),
    // A directory that was named and is not there is a mistake; our own is made.
    create: Option.isNone(named)
  }
}

const bootstrapOf = Effect.fnUntraced(function*(flags: Flags) {
  const sources = yield* Effect.forEach(
    new Set(flags.bootstrapKind),
    Effect.fnUntraced(function*(kind) {
      if (kind === "dns") {
        if (flags.dnsBootstrapDomain === "") {
          return yield* new SettingsInvalid({
            flag: "dns-bootstrap-domain",
            reason: "is needed for the bootstrap kind dns"
          })
        }
        return Bootstrap.fromDns({ name: flags.dnsBootstrapDomain, port: flags.routerAddr.port })
      }
      if (kind === "http") {
        if (Option.isNone(flags.httpBootstrapPeer)) {
          return yield* new SettingsInvalid({
            flag: "http-bootstrap-peer",
            reason: "is needed for the bootstrap kind http"
          })
        }
        return Bootstrap.fromHttp({ url: flags.httpBootstrapPeer.value })
      }
      if (flags.staticBootstrapPeers.length === 0) {
        return yield* new SettingsInvalid({
          flag: "static-bootstrap-peers",
          reason: "is needed for the bootstrap kind static"
        })
      }
      return yield* Effect.fromResult(Bootstrap.fromStatic(flags.staticBootstrapPeers))
    })
  )
  if (sources.length === 0) {
    yield* Effect.logWarning("no --bootstrap-kind is set: this node finds no peers by itself and waits to be found")
  }
  return Bootstrap.merge(sources)
})

export const registry = Command.make(
  "registry",
  flags,
  Effect.fnUntraced(function*(flags) {
    if (Duration.isGreaterThanOrEqualTo(flags.recordRefresh, flags.recordTtl)) {
      return yield* new SettingsInvalid({ flag: "record-refresh", reason: "must be shorter than --record-ttl" })
    }
    const filter = yield* Effect.fromResult(RegistryFilter.make({
      mirroredRegistries: flags.mirroredRegistries,
      registryFilters: flags.resolveLatestTag ? flags.registryFilters : [...flags.registryFilters, /:latest$/]
    }))
    return yield* Daemon.run({
      ...flags,
      store: storeSettings(flags),
      bootstrap: yield* bootstrapOf(flags),
      bootstrapAddr: flags.bootstrapKind.includes("http") ? Option.some(flags.httpBootstrapAddr) : Option.none(),
      peerCidrs: yield* Effect.fromResult(PeerAddress.parseCidrs(flags.peerCidrs)),
      filter
    })
  })
).pipe(Command.withDescription("Run the mirror on this node"))
