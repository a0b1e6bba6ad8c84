import * as MirrorConfiguration from "@spegel-ts/containerd/MirrorConfiguration"
import { Console, Effect, Option, Schema } from "effect"
import { Command } from "effect/cli"
import * as BasicAuthFiles from "../cli/BasicAuthFiles.ts"
import { many, one, onOff } from "../cli/Flags.ts"
import { withBrackets } from "../cli/NodeUrl.ts"
import { textSchema } from "../cli/TextSchema.ts"
import * as HostsReport from "../containerd/HostsReport.ts"
import * as MirrorUse from "../containerd/MirrorUse.ts"
import { containerdRegistryConfigPath, mirroredRegistries, SettingsInvalid } from "./shared.ts"

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
const tagResolution = textSchema<Option.Option<MirrorConfiguration.TagResolution>>({
  expected: resolutions.join(", "),
  parse: (text) => {
    const found = resolutions.find((resolution) => resolution === text)
    return text === ""
      ? Option.some(Option.none())
      : found === undefined
      ? Option.none()
      : Option.some(Option.some(found))
  },
  print: Option.getOrElse(() => "")
})

const flags = {
  containerdRegistryConfigPath,
  mirroredRegistries,
  mirrorTargets: many({
    name: "mirror-targets",
    description: "URL of the mirror that containerd is to ask first",
    schema: target,
    metavar: "URL"
  }),
  resolveTags: onOff({
    name: "resolve-tags",
    description: "Let containerd ask the mirror for tags too, not for digests only",
    fallback: true
  }),
  tagResolution: one({
    name: "tag-resolution",
    description:
      "Who is asked for a tag: mirror (then upstream), upstream-first (the mirror where upstream does not answer) or never (upstream alone). Default: as --resolve-tags says",
    schema: tagResolution,
    fallback: "",
    metavar: "ORDER"
  }),
  prependExisting: onOff({
    name: "prepend-existing",
    description: "Keep mirrors that are configured already, behind this one; false suspends them",
    fallback: true
  }),
  basicAuthDir: one({
    name: "basic-auth-dir",
    description: "Directory of the files username and password that the mirror asks for",
    schema: Schema.NonEmptyString,
    fallback: "/etc/secrets/basic-auth",
    metavar: "DIR"
  }),
  containerdConfig: one({
    name: "containerd-config",
    description: "containerd's configuration file, to warn where it keeps containerd from asking the mirror",
    schema: Schema.NonEmptyString,
    fallback: "/etc/containerd/config.toml",
    metavar: "FILE"
  }),
  containerdSock: one({
    name: "containerd-sock",
    description: "containerd's socket, to ask its version for that",
    schema: Schema.NonEmptyString,
    fallback: "/run/containerd/containerd.sock",
    metavar: "PATH"
  })
}

type Flags = Command.Command.Config.Infer<typeof flags>

/** Flags contradict each other rather than one of them being forgotten in silence. */
const tagResolutionOf = Effect.fnUntraced(function*(flags: Flags) {
  const chosen = Option.getOrElse(flags.tagResolution, () => flags.resolveTags ? "mirror" : "never")
  if (!flags.resolveTags && chosen !== "never") {
    return yield* new SettingsInvalid({ flag: "tag-resolution", reason: `${chosen} contradicts --resolve-tags=false` })
  }
  if (chosen === "upstream-first" && flags.mirroredRegistries.length === 0) {
    return yield* new SettingsInvalid({
      flag: "tag-resolution",
      reason: "upstream-first needs --mirrored-registries: a file for all registries cannot name their upstreams"
    })
  }
  return chosen
})

export const configuration = Command.make(
  "configuration",
  flags,
  Effect.fnUntraced(function*(flags) {
    if (flags.mirrorTargets.length === 0) {
      return yield* new SettingsInvalid({
        flag: "mirror-targets",
        reason: "is needed: a URL such as http://127.0.0.1:5000"
      })
    }
    const changes = yield* MirrorConfiguration.write({
      ...flags,
      configPath: flags.containerdRegistryConfigPath,
      tagResolution: yield* tagResolutionOf(flags),
      basicAuth: yield* BasicAuthFiles.load(flags.basicAuthDir)
    })
    yield* Effect.forEach(changes, (change) => Console.log(HostsReport.print(change)))
    yield* Effect.forEach(changes, HostsReport.warn)
    yield* MirrorUse.warn({ ...flags, configPath: flags.containerdRegistryConfigPath })
  })
).pipe(Command.withDescription("Make containerd ask the mirror first: write its hosts.toml files"))
