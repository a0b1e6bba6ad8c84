/** The settings of `spegel registry`, the mirror on a node. */
import { Option, Schema } from "effect"
import * as GoInteger from "../cli/GoInteger.ts"
import { regularExpression } from "../cli/RegularExpression.ts"
import { group, many, one, onOff, type Values } from "../cli/Setting.ts"
import { optional, textSchema } from "../cli/TextSchema.ts"
import { bootstrapSettings } from "./BootstrapSettings.ts"
import { mirrorSettings } from "./MirrorSettings.ts"
import { routingSettings } from "./RoutingSettings.ts"
import {
  basicAuthDir,
  containerdRegistryConfigPath,
  containerdSock,
  directory,
  duration,
  listenAddress,
  metricsAddr,
  mirroredRegistries,
  nodeName
} from "./SharedSettings.ts"
import { trustSettings } from "./TrustSettings.ts"

const text = { schema: Schema.String, fallback: "" }

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
  containerdRegistryConfigPath
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

const serverSettings = {
  registryAddr: one({
    ...listenAddress,
    description: "Where to serve images to containerd and to peers",
    fallback: ":5000"
  }),
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
  }),
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

const nodeSettings = {
  nodeReadinessTaint: one({
    ...text,
    description: "Key of the taint to remove from this Kubernetes node once the mirror is ready; empty for none",
    metavar: "KEY"
  }),
  nodeName: one({
    ...nodeName,
    description:
      "Name of this node: for --node-readiness-taint, to know this node's containerd by its token (default there: the host's name), and to notice that an identity was cloned"
  })
}

const observabilitySettings = {
  metricsAddr: metricsAddr("Where to serve metrics and debug pages"),
  debugWebEnabled: onOff({ description: "Serve debug pages on the metrics address", fallback: true }),
  debugProfile: onOff({
    description: "Let the debug pages take CPU profiles of this process, at /debug/profile",
    fallback: false
  })
}

export const registrySettings = {
  ...group("Registry", serverSettings),
  ...group("Content store", storeSettings),
  ...group("Images", imageSettings),
  ...group("Mirror policy", mirrorSettings),
  ...group("Peers and routing", routingSettings),
  ...group("First peers", bootstrapSettings),
  ...group("Trust", { ...trustSettings, basicAuthDir }),
  ...group("Kubernetes", nodeSettings),
  ...group("Observability", observabilitySettings)
}

export type RegistrySettings = Values<typeof registrySettings>
