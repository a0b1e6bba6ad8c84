/** Settings that more than one command has, and what several settings have in common. */
import { registryHost } from "@spegel-ts/oci/RegistryFilter"
import { Option, Result, Schema } from "effect"
import { GoDuration, PositiveGoDuration } from "../cli/GoDuration.ts"
import { ListenAddress } from "../cli/ListenAddress.ts"
import { many, map, one } from "../cli/Setting.ts"
import { optional, textSchema } from "../cli/TextSchema.ts"

export const listenAddress = { schema: ListenAddress, metavar: "[IP]:PORT" }
export const directory = { schema: Schema.NonEmptyString, metavar: "DIR" }
export const optionalPath = { schema: optional(Schema.NonEmptyString), fallback: "", metavar: "PATH" }
export const duration = { schema: GoDuration, metavar: "DURATION" }
export const positiveDuration = { schema: PositiveGoDuration, metavar: "DURATION" }

/** The name of an object or a namespace: an RFC 1123 subdomain. */
export const objectName = textSchema<string>({
  expected: "a name of lower-case letters, digits, - and . such as spegel",
  parse: (text) =>
    /^[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?$/.test(text) && text.length <= 253 ? Option.some(text) : Option.none(),
  print: (name) => name
})

export const containerdRegistryConfigPath = one({
  ...directory,
  description: "Directory of containerd's hosts.toml files: its config_path",
  fallback: "/etc/containerd/certs.d"
})

/** Where a mirror serves metrics and debug pages, and where commands ask it. */
export const metricsAddr = (description: string) => one({ ...listenAddress, description, fallback: ":9090" })

export const containerdSock = one({
  description: "containerd's socket",
  schema: Schema.NonEmptyString,
  fallback: "/run/containerd/containerd.sock",
  metavar: "PATH"
})

export const dataDir = one({
  ...directory,
  description: "Directory of the node's identity",
  fallback: "/var/lib/spegel"
})

export const basicAuthDir = one({
  ...directory,
  description: "Directory of the files username and password: the credentials that the mirror asks its clients for",
  fallback: "/etc/secrets/basic-auth"
})

export const clusterKeyFile = one({
  ...optionalPath,
  description:
    "File of the cluster's keys, one a line, as spegel cluster-key generate makes it: mirrors prove to each other that they know it, and containerd has a token that it signed"
})

export const nodeName = { schema: Schema.String, fallback: "", metavar: "NAME" }

export const kubeconfigPath = one({
  ...optionalPath,
  description: "kubeconfig file for the Kubernetes API; without it, this pod's service account"
})

/** containerd's directory for all registries that have none of their own; Go Spegel's name for all of them. */
const allRegistries = "_default"

export const mirroredRegistries = map(
  many({
    description: `Registry to mirror, as host or URL; none, or ${allRegistries}, means all`,
    schema: textSchema<string>({
      expected: "a registry such as docker.io or https://registry.example:5000",
      parse: (text) =>
        text === allRegistries || Result.isSuccess(registryHost(text)) ? Option.some(text) : Option.none(),
      print: (registry) => registry
    }),
    metavar: "REGISTRY"
  }),
  (registries) => registries.includes(allRegistries) ? [] : registries
)
