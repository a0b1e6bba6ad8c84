import type { NamePattern } from "@spegel-ts/oci/NamePattern"
import * as RegistryFilter from "@spegel-ts/oci/RegistryFilter"
import * as Identity from "@spegel-ts/router/Identity"
import * as PeerAddress from "@spegel-ts/router/PeerAddress"
import { Duration, Effect, Option, Result, Schema } from "effect"
import { Command } from "effect/cli"
import { existsSync } from "node:fs"
import { join } from "node:path"
import { many, one, onOff } from "../cli/Flags.ts"
import { GoDuration, PositiveGoDuration } from "../cli/GoDuration.ts"
import * as GoInteger from "../cli/GoInteger.ts"
import { ListenAddress } from "../cli/ListenAddress.ts"
import * as MirrorFlags from "../cli/MirrorFlags.ts"
import { regularExpression } from "../cli/RegularExpression.ts"
import { textSchema } from "../cli/TextSchema.ts"
import * as Daemon from "../daemon/Daemon.ts"
import { bootstrapFlags, bootstrapLayer, bootstrapTls } from "./bootstrap.ts"
import { containerdRegistryConfigPath, dataDir, mirroredRegistries, SettingsInvalid } from "./shared.ts"

const path = Schema.NonEmptyString
const address = { schema: ListenAddress, metavar: "[IP]:PORT" }
const duration = { schema: GoDuration, metavar: "DURATION" }
const wait = { schema: PositiveGoDuration, metavar: "DURATION" }

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

const uploads = GoInteger.between("a number of uploads such as 128, or 0 for any,", 0, 1_000_000)

/** What --resolve-latest-tag=false leaves to upstream. */
const latestTag: NamePattern = { matches: (name) => name.endsWith(":latest") }

const bodyMemory = textSchema<number>({
  expected: "a number of bytes from 8388608 to 1099511627776",
  parse: (text) => Option.filter(Option.some(Number(/^\d{7,13}$/.test(text) ? text : 0)), isBodyMemory),
  print: String
})
const isBodyMemory = (bytes: number) => bytes >= 8 * 1024 ** 2 && bytes <= 1024 ** 4

const cidr = textSchema<string>({
  expected: "a range of addresses such as 10.0.0.0/8 or fd00::/8",
  parse: (text) => Result.isSuccess(PeerAddress.parseCidrs([text])) ? Option.some(text) : Option.none(),
  print: (text) => text
})

const flags = {
  registryAddr: one({
    ...address,
    name: "registry-addr",
    description: "Where to serve images to containerd and to peers",
    fallback: ":5000"
  }),
  routerAddr: one({
    ...address,
    name: "router-addr",
    description: "Where to talk to peers about who has what",
    fallback: ":5001"
  }),
  metricsAddr: one({
    ...address,
    name: "metrics-addr",
    description: "Where to serve metrics and debug pages",
    fallback: ":9090"
  }),
  store: one({
    name: "store",
    description:
      "Where this node's images are: containerd, or oci-layout:DIR. Default: containerd where its socket exists, else an image layout in the data directory",
    schema: storeOrDefault,
    fallback: "",
    metavar: "STORE"
  }),
  containerdSock: one({
    name: "containerd-sock",
    description: "containerd's socket",
    schema: path,
    fallback: "/run/containerd/containerd.sock",
    metavar: "PATH"
  }),
  containerdNamespace: one({
    name: "containerd-namespace",
    description: "containerd's namespace of the images",
    schema: path,
    fallback: "k8s.io",
    metavar: "NAME"
  }),
  containerdContentPath: one({
    name: "containerd-content-path",
    description: "containerd's content directory",
    schema: path,
    fallback: "/var/lib/containerd/io.containerd.content.v1.content",
    metavar: "DIR"
  }),
  containerdConfig: one({
    name: "containerd-config",
    description:
      "containerd's configuration file, to warn at the start where it keeps containerd from asking the mirror; empty for none",
    schema: Schema.String,
    fallback: "",
    metavar: "FILE"
  }),
  containerdRegistryConfigPath,
  dataDir,
  mirroredRegistries,
  registryFilters: many({
    name: "registry-filters",
    description: "Regular expression (RE2); images whose registry/repository:tag matches are left to upstream",
    schema: regularExpression,
    metavar: "REGEXP",
    commas: "part of a value"
  }),
  resolveTags: onOff({
    name: "resolve-tags",
    description: "Ask peers for tags too, not for digests only",
    fallback: true
  }),
  resolveLatestTag: onOff({
    name: "resolve-latest-tag",
    description: "Deprecated: false is --registry-filters=:latest$",
    fallback: true
  }),
  ...MirrorFlags.flags,
  ...bootstrapFlags,
  peerCidrs: many({
    name: "peer-cidrs",
    description: "Range in which the addresses of all peers lie; others that peers claim are not believed",
    schema: cidr,
    metavar: "CIDR"
  }),
  recordTtl: one({
    ...wait,
    name: "record-ttl",
    description: "How long what a peer says it holds is believed, where it is not said again",
    fallback: "10m"
  }),
  recordRefresh: one({
    ...wait,
    name: "record-refresh",
    description: "How often this node says again what it holds; less than the peers' --record-ttl",
    fallback: "9m"
  }),
  maxUploads: one({
    name: "max-uploads",
    description: "How many bodies may be sent to peers at once; others are told to ask another peer. 0 for any number",
    schema: uploads,
    fallback: "128",
    metavar: "NUMBER"
  }),
  maxUploadsPerPeer: one({
    name: "max-uploads-per-peer",
    description: "How many bodies may be sent to one peer at once; 0 for any number",
    schema: uploads,
    fallback: "16",
    metavar: "NUMBER"
  }),
  dataPlane: one({
    name: "data-plane",
    description: "How bodies are moved: zero-copy (within the kernel), portable (through this process), or auto",
    schema: Schema.Literals(["auto", "zero-copy", "portable"]),
    fallback: "auto",
    metavar: "PLANE"
  }),
  maxBodyMemory: one({
    name: "max-body-memory",
    description: "Bytes of memory for all bodies being sent, buffers of sockets included; a client has a share of it",
    schema: bodyMemory,
    fallback: "100663296",
    metavar: "BYTES"
  }),
  nodeReadinessTaint: one({
    name: "node-readiness-taint",
    description: "Key of the taint to take off this Kubernetes node when the mirror is ready; empty for none",
    schema: Schema.String,
    fallback: "",
    metavar: "KEY"
  }),
  nodeName: one({
    name: "node-name",
    description: "Name of this node; for --node-readiness-taint, and to notice an identity that was cloned",
    schema: Schema.String,
    fallback: "",
    metavar: "NAME"
  }),
  debugWebEnabled: onOff({
    name: "debug-web-enabled",
    description: "Serve debug pages on the metrics address",
    fallback: true
  }),
  basicAuthDir: one({
    name: "basic-auth-dir",
    description: "Directory of the files username and password, which clients must then give",
    schema: path,
    fallback: "/etc/secrets/basic-auth",
    metavar: "DIR"
  }),
  shutdownDelay: one({
    ...duration,
    name: "shutdown-delay",
    description: "How long requests are still taken after SIGTERM, while /readyz answers 503",
    fallback: "0s"
  }),
  shutdownGrace: one({
    ...duration,
    name: "shutdown-grace",
    description: "How long running requests may go on at shutdown, after --shutdown-delay",
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

export const registry = Command.make(
  "registry",
  flags,
  Effect.fnUntraced(function*(flags) {
    if (Duration.isGreaterThanOrEqualTo(flags.recordRefresh, flags.recordTtl)) {
      return yield* new SettingsInvalid({ flag: "record-refresh", reason: "must be shorter than --record-ttl" })
    }
    const { kubeconfigPath: kubeconfig, nodeName: node, nodeReadinessTaint: taint } = flags
    if (taint !== "" && node === "") {
      return yield* new SettingsInvalid({ flag: "node-name", reason: "is needed for --node-readiness-taint" })
    }
    const filter = yield* Effect.fromResult(RegistryFilter.make({
      mirroredRegistries: flags.mirroredRegistries,
      registryFilters: flags.resolveLatestTag ? flags.registryFilters : [...flags.registryFilters, latestTag]
    }))
    const peerCidrs = yield* Effect.fromResult(PeerAddress.parseCidrs(flags.peerCidrs))
    return yield* Daemon.run({
      ...flags,
      store: storeSettings(flags),
      owner: yield* Effect.promise(() => Identity.ownerOf({ nodeName: node })),
      bootstrap: yield* bootstrapLayer({ ...flags, peerCidrs }),
      bootstrapTls: bootstrapTls(flags),
      nodeTaint: taint === "" ? Option.none() : Option.some({ taint, node, kubeconfig }),
      bootstrapAddr: flags.bootstrapKind.includes("http") ? Option.some(flags.httpBootstrapAddr) : Option.none(),
      peerCidrs,
      filter,
      mirroredRegistries: yield* Effect.fromResult(
        Result.all(flags.mirroredRegistries.map((registry) => RegistryFilter.registryHost(registry)))
      )
    })
  })
).pipe(Command.withDescription("Run the mirror on this node"))
