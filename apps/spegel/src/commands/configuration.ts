import * as MirrorConfiguration from "@spegel-ts/containerd/MirrorConfiguration"
import { Console, Effect, Option, Schema } from "effect"
import { Command } from "effect/cli"
import * as BasicAuthFiles from "../BasicAuthFiles.ts"
import { many, one, onOff, textSchema } from "../Flags.ts"
import { containerdRegistryConfigPath, mirroredRegistries, SettingsInvalid } from "./shared.ts"

const target = textSchema<string>({
  expected: "a mirror's URL such as http://127.0.0.1:5000",
  parse: (text) => {
    const url = /^https?:\/\/[^/?#@\s]+\/?$/.test(text) && URL.canParse(text)
    return url ? Option.some(text) : Option.none()
  },
  print: (url) => url
})

const flags = {
  containerdRegistryConfigPath,
  mirroredRegistries,
  mirrorTargets: many({
    name: "mirror-targets",
    environment: "MIRROR_TARGETS",
    description: "URL of the mirror that containerd is to ask first",
    schema: target,
    metavar: "URL"
  }),
  resolveTags: onOff({
    name: "resolve-tags",
    environment: "RESOLVE_TAGS",
    description: "Let containerd ask the mirror for tags too, not for digests only",
    fallback: true
  }),
  prependExisting: onOff({
    name: "prepend-existing",
    environment: "PREPEND_EXISTING",
    description: "Put the mirror in front of what is configured already, instead of in its place",
    fallback: false
  }),
  basicAuthDir: one({
    name: "basic-auth-dir",
    environment: "BASIC_AUTH_DIR",
    description: "Directory of the files username and password that the mirror asks for",
    schema: Schema.NonEmptyString,
    fallback: "/etc/secrets/basic-auth",
    metavar: "DIR"
  })
}

export const configuration = Command.make(
  "configuration",
  flags,
  Effect.fnUntraced(function*({ basicAuthDir, containerdRegistryConfigPath, ...flags }) {
    if (flags.mirrorTargets.length === 0) {
      return yield* new SettingsInvalid({
        flag: "mirror-targets",
        reason: "is needed: a URL such as http://127.0.0.1:5000"
      })
    }
    const written = yield* MirrorConfiguration.write({
      ...flags,
      configPath: containerdRegistryConfigPath,
      basicAuth: yield* BasicAuthFiles.load(basicAuthDir)
    })
    yield* Effect.forEach(written, (path) => Console.log(`wrote ${path}`))
  })
).pipe(Command.withDescription("Make containerd ask the mirror first: write its hosts.toml files"))
