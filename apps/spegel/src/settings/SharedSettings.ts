/** Settings that more than one command has. */
import { registryHost } from "@spegel-ts/oci/RegistryFilter"
import { Option, Result, Schema } from "effect"
import { many, map, one } from "../cli/Setting.ts"
import { optional, textSchema } from "../cli/TextSchema.ts"

export const containerdRegistryConfigPath = one({
  description: "Directory of containerd's hosts.toml files: its config_path",
  schema: Schema.NonEmptyString,
  fallback: "/etc/containerd/certs.d",
  metavar: "DIR"
})

export const containerdSock = one({
  description: "containerd's socket",
  schema: Schema.NonEmptyString,
  fallback: "/run/containerd/containerd.sock",
  metavar: "PATH"
})

export const dataDir = one({
  description: "Directory of the node's identity",
  schema: Schema.NonEmptyString,
  fallback: "/var/lib/spegel",
  metavar: "DIR"
})

export const basicAuthDir = one({
  description: "Directory of the files username and password: the credentials that the mirror asks its clients for",
  schema: Schema.NonEmptyString,
  fallback: "/etc/secrets/basic-auth",
  metavar: "DIR"
})

export const kubeconfigPath = one({
  description: "kubeconfig file for the Kubernetes API; without it, this pod's service account",
  schema: optional(Schema.NonEmptyString),
  fallback: "",
  metavar: "PATH"
})

/** containerd's directory for all registries that have none of their own; Go Spegel's name for all of them. */
const allRegistries = "_default"

export const mirroredRegistries = map(
  many({
    description: `Registry to mirror, as host or URL; all of them if none is given, or ${allRegistries}`,
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
