/** Flags that more than one command has. */
import { registryHost } from "@spegel-ts/oci/RegistryFilter"
import { Data, Option, Result, Schema } from "effect"
import { Flag } from "effect/cli"
import { many, one } from "../cli/Flags.ts"
import { textSchema } from "../cli/TextSchema.ts"

/** Flags that do not fit together. */
export class SettingsInvalid extends Data.TaggedError("SettingsInvalid")<{
  readonly flag: string
  readonly reason: string
}> {
  override get message() {
    return `--${this.flag}: ${this.reason}`
  }
}

export const containerdRegistryConfigPath = one({
  name: "containerd-registry-config-path",
  description: "Directory of containerd's hosts.toml files: its config_path",
  schema: Schema.NonEmptyString,
  fallback: "/etc/containerd/certs.d",
  metavar: "DIR"
})

export const dataDir = one({
  name: "data-dir",
  description: "Directory of the node's identity",
  schema: Schema.NonEmptyString,
  fallback: "/var/lib/spegel",
  metavar: "DIR"
})

/** containerd's directory for all registries that have none of their own; Go Spegel's name for all of them. */
const allRegistries = "_default"

export const mirroredRegistries = many({
  name: "mirrored-registries",
  description: `Registry to mirror, as host or URL; all of them where none is given, or ${allRegistries}`,
  schema: textSchema<string>({
    expected: "a registry such as docker.io or https://registry.example:5000",
    parse: (text) => text === allRegistries || Result.isSuccess(registryHost(text)) ? Option.some(text) : Option.none(),
    print: (registry) => registry
  }),
  metavar: "REGISTRY"
}).pipe(Flag.map((registries) => registries.includes(allRegistries) ? [] : registries))
