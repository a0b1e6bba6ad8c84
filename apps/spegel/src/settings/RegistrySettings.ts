/** The settings of `spegel registry`, the mirror on a node. */
import * as PeerAddress from "@spegel-ts/router/PeerAddress"
import { Option, Result, Schema } from "effect"
import * as GoInteger from "../cli/GoInteger.ts"
import { regularExpression } from "../cli/RegularExpression.ts"
import { many, one, onOff, type Values } from "../cli/Setting.ts"
import { optional, textSchema } from "../cli/TextSchema.ts"
import { bootstrapSettings } from "./BootstrapSettings.ts"
import { mirrorSettings } from "./MirrorSettings.ts"
import {
  address,
  basicAuthDir,
  containerdRegistryConfigPath,
  containerdSock,
  dataDir,
  directory,
  duration,
  metricsAddr,
  mirroredRegistries,
  nodeName,
  positiveDuration
} from "./SharedSettings.ts"
import { trustSettings } from "./TrustSettings.ts"

const text = { schema: Schema.String, fallback: "" }

const listenSettings = {
  registryAddr: one({ ...address, description: "Where to serve images to containerd and to peers", fallback: ":5000" }),
  routerAddr: one({ ...address, description: "Where to exchange with peers which node holds what", fallback: ":5001" }),
  metricsAddr: metricsAddr("Where to serve metrics and debug pages")
}

/** A store that the user names. */
export type NamedStore = { readonly _tag: "Containerd" } | { readonly _tag: "OciLayout"; readonly root: string }

const store = textSchema<NamedStore>({
  expected: "containerd or oci-layout:DIR",
  parse: (text) => {
    if (text === "containerd") return Option.some({ _tag: "Containerd" })
    const root = /^oci-layout:(.+)$/.exec(text)?.[1]
    return root === undefined ? Option.none() : Option.some({ _tag: "OciLayout", root })
  },
  print: (store) => store._tag === "Containerd" ? "containerd" : `oci-layout:${store.root}`
})

const storeSettings = {
  store: one({
    description:
      "Where this node's images are: containerd, or oci-layout:DIR. Default: containerd if its socket exists, else an image layout in the data directory",
    schema: optional(store),
    fallback: "",
    metavar: "STORE"
  }),
  containerdSock,
  containerdNamespace: one({
    description: "containerd's namespace with the images",
    schema: Schema.NonEmptyString,
    fallback: "k8s.io",
    metavar: "NAME"
  }),
  containerdContentPath: one({
    ...directory,
    description: "containerd's content directory",
    fallback: "/var/lib/containerd/io.containerd.content.v1.content"
  }),
  containerdConfig: one({
    ...text,
    description:
      "containerd's configuration file, to warn at the start if it keeps containerd from asking the mirror; empty for none",
    metavar: "FILE"
  }),
  containerdRegistryConfigPath,
  dataDir
}

const imageSettings = {
  mirroredRegistries,
  registryFilters: many({
    description: "Regular expression (RE2); images whose registry/repository:tag matches are left to upstream",
    schema: regularExpression,
    metavar: "REGEXP",
    commas: "part of a value"
  }),
  resolveTags: onOff({ description: "Ask peers for tags too, not only for digests", fallback: true }),
  resolveLatestTag: onOff({ description: "Deprecated: false means --registry-filters=:latest$", fallback: true })
}

const cidr = textSchema<string>({
  expected: "a range of addresses such as 10.0.0.0/8 or fd00::/8",
  parse: (text) => Result.isSuccess(PeerAddress.parseCidrs([text])) ? Option.some(text) : Option.none(),
  print: (text) => text
})

const networkSettings = {
  peerCidrs: many({
    description: "Range of the peers' addresses; addresses outside all ranges are ignored",
    schema: cidr,
    metavar: "CIDR"
  }),
  recordTtl: one({
    ...positiveDuration,
    description: "How long a peer's advertisement counts unless the peer repeats it",
    fallback: "10m"
  }),
  recordRefresh: one({
    ...positiveDuration,
    description: "How often this node repeats its advertisements; must be shorter than the peers' --record-ttl",
    fallback: "9m"
  })
}

const uploads = {
  schema: GoInteger.between("a number of uploads such as 128, or 0 for any,", 0, 1_000_000),
  metavar: "NUMBER"
}

const isBodyMemory = (bytes: number) => bytes >= 8 * 1024 ** 2 && bytes <= 1024 ** 4
const bodyMemory = textSchema<number>({
  expected: "a number of bytes from 8388608 to 1099511627776",
  parse: (text) => Option.filter(Option.some(Number(/^\d{7,13}$/.test(text) ? text : 0)), isBodyMemory),
  print: String
})

const bodySettings = {
  maxUploads: one({
    ...uploads,
    description:
      "How many bodies to send to peers at once; further requests are told to ask another peer. 0 for no limit",
    fallback: "128"
  }),
  maxUploadsPerPeer: one({
    ...uploads,
    description: "How many bodies to send to one peer at once; 0 for no limit",
    fallback: "16"
  }),
  dataPlane: one({
    description: "How to move bodies: zero-copy (within the kernel), portable (through this process), or auto",
    schema: Schema.Literals(["auto", "zero-copy", "portable"]),
    fallback: "auto",
    metavar: "PLANE"
  }),
  maxBodyMemory: one({
    description: "Memory in bytes for all bodies being sent, socket buffers included; each client gets a share of it",
    schema: bodyMemory,
    fallback: "100663296",
    metavar: "BYTES"
  })
}

const operationSettings = {
  nodeReadinessTaint: one({
    ...text,
    description: "Key of the taint to remove from this Kubernetes node once the mirror is ready; empty for none",
    metavar: "KEY"
  }),
  nodeName: one({
    ...nodeName,
    description:
      "Name of this node: for --node-readiness-taint, to know this node's containerd by its token (default there: the host's name), and to notice that an identity was cloned"
  }),
  debugWebEnabled: onOff({ description: "Serve debug pages on the metrics address", fallback: true }),
  debugProfile: onOff({
    description: "Let the debug pages take CPU profiles of this process, at /debug/profile",
    fallback: false
  }),
  basicAuthDir,
  shutdownDelay: one({
    ...duration,
    description: "How long to accept requests after SIGTERM, while /readyz answers 503",
    fallback: "0s"
  }),
  shutdownGrace: one({
    ...duration,
    description: "How long running requests may continue at shutdown, after --shutdown-delay",
    fallback: "20s"
  })
}

export const registrySettings = {
  ...listenSettings,
  ...storeSettings,
  ...imageSettings,
  ...mirrorSettings,
  ...bootstrapSettings,
  ...networkSettings,
  ...trustSettings,
  ...bodySettings,
  ...operationSettings
}

export type RegistrySettings = Values<typeof registrySettings>
