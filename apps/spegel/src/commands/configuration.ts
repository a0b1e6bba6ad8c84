import * as MirrorConfiguration from "@spegel-ts/containerd/MirrorConfiguration"
import { Console, Effect, Option, Schema } from "effect"
import { Command } from "effect/cli"
import * as BasicAuthFiles from "../cli/BasicAuthFiles.ts"
import { withBrackets } from "../cli/NodeUrl.ts"
import { flagsOf, group, many, one, onOff, type Values } from "../cli/Setting.ts"
import { optional, textSchema, wordSchema } from "../cli/TextSchema.ts"
import * as HostsReport from "../containerd/HostsReport.ts"
import * as MirrorUse from "../containerd/MirrorUse.ts"
import { SettingsInvalid } from "../settings/SettingsInvalid.ts"
import {
  basicAuthDir,
  clusterKeyFile,
  containerdRegistryConfigPath,
  containerdSock,
  mirroredRegistries,
  nodeName
} from "../settings/SharedSettings.ts"
import { clientTokenOf } from "../settings/TrustSettings.ts"

const target = textSchema<string>({
  expected: "a mirror's URL such as http://127.0.0.1:5000 or http://[::1]:5000",
  parse: (text) => {
    const bracketed = withBrackets(text)
    return /^https?:\/\/[^/?#@\s]+\/?$/.test(bracketed) && URL.canParse(bracketed)
      ? Option.some(bracketed)
      : Option.none()
  },
  print: (url) => url
})

const resolutions: ReadonlyArray<MirrorConfiguration.TagResolution> = ["mirror", "upstream-first", "never"]

/** What containerd is told of the mirror. */
const mirrorSettings = {
  mirrorTargets: many({
    description: "URL of the mirror that containerd asks first. It gets this node's token or password",
    schema: target,
    metavar: "URL"
  }),
  additionalMirrorTargets: many({
    description:
      "URL of another mirror that containerd asks next, such as a pull-through cache. It gets no credentials",
    schema: target,
    metavar: "URL"
  }),
  mirroredRegistries,
  resolveTags: onOff({
    description: "Let containerd ask the mirror for tags too, not only for digests",
    fallback: true
  }),
  tagResolution: one({
    description:
      "Where containerd asks for a tag: mirror (then upstream), upstream-first (the mirror if upstream does not answer) or never (upstream alone). Default: mirror, or never with --resolve-tags=false",
    schema: optional(wordSchema(resolutions.join(", "), resolutions)),
    fallback: "",
    metavar: "ORDER"
  }),
  prependExisting: onOff({
    description: "Keep mirrors that are configured already, behind this one; false suspends them",
    fallback: true
  })
}

const containerdSettings = {
  containerdRegistryConfigPath,
  containerdConfig: one({
    description: "containerd's configuration file, to warn if it keeps containerd from asking the mirror",
    schema: Schema.NonEmptyString,
    fallback: "/etc/containerd/config.toml",
    metavar: "FILE"
  }),
  containerdSock
}

const trustSettings = {
  basicAuthDir,
  clusterKeyFile,
  nodeName: one({
    ...nodeName,
    description:
      "Name of this node, which containerd's token has; as spegel registry is given it. Default: the host's name"
  })
}

export const configurationSettings = {
  ...group("Mirror", mirrorSettings),
  ...group("containerd", containerdSettings),
  ...group("Trust", trustSettings)
}

type Settings = Values<typeof configurationSettings>

/** Refuses settings that contradict each other, rather than ignoring one of them. */
const tagResolutionOf = Effect.fnUntraced(function*(settings: Settings) {
  const chosen = Option.getOrElse(settings.tagResolution, () => settings.resolveTags ? "mirror" : "never")
  if (!settings.resolveTags && chosen !== "never") {
    return yield* new SettingsInvalid({ flag: "tag-resolution", reason: `${chosen} contradicts --resolve-tags=false` })
  }
  if (chosen === "upstream-first" && settings.mirroredRegistries.length === 0) {
    return yield* new SettingsInvalid({
      flag: "tag-resolution",
      reason: "upstream-first needs --mirrored-registries: a file for all registries cannot name their upstreams"
    })
  }
  return chosen
})

export const configuration = Command.make(
  "configuration",
  flagsOf(configurationSettings),
  Effect.fnUntraced(function*(settings) {
    if (settings.mirrorTargets.length === 0) {
      return yield* new SettingsInvalid({
        flag: "mirror-targets",
        reason: "is needed: a URL such as http://127.0.0.1:5000"
      })
    }
    const changes = yield* MirrorConfiguration.write({
      ...settings,
      configPath: settings.containerdRegistryConfigPath,
      tagResolution: yield* tagResolutionOf(settings),
      basicAuth: yield* BasicAuthFiles.load(settings.basicAuthDir),
      token: Option.getOrUndefined(yield* clientTokenOf(settings))
    })
    yield* Effect.forEach(changes, (change) => Console.log(HostsReport.print(change)))
    yield* Effect.forEach(changes, HostsReport.warn)
    yield* MirrorUse.warn({ ...settings, configPath: settings.containerdRegistryConfigPath })
  })
).pipe(
  Command.withDescription("Make containerd ask the mirror first: write its hosts.toml files"),
  Command.withExamples([
    { command: "spegel configuration --mirror-targets=http://127.0.0.1:5000", description: "All registries" },
    {
      command:
        "spegel configuration --mirror-targets=http://127.0.0.1:5000 --mirrored-registries=docker.io,ghcr.io --tag-resolution=upstream-first",
      description: "Two registries; upstream resolves tags while it answers"
    }
  ])
)
