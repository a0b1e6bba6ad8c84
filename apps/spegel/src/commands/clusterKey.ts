import { generate as newKey } from "@spegel-ts/cluster-key/KeyRing"
import { Console, Effect, Option } from "effect"
import { Command, Flag } from "effect/cli"
import { flagOnly, flagsOf, many, one } from "../cli/Setting.ts"
import { optional, patternSchema } from "../cli/TextSchema.ts"
import * as KeyFile from "../cluster-key/KeyFile.ts"
import { SettingsInvalid } from "../settings/SettingsInvalid.ts"
import { kubeconfigPath, objectName, positiveDuration } from "../settings/SharedSettings.ts"

export const generateSettings = {
  output: flagOnly({
    description: "File for the key, which only its owner can read. A file that exists is not changed",
    fallback: "",
    metavar: "FILE",
    flag: (name) => Flag.String(name)
  })
}

const generate = Command.make(
  "generate",
  flagsOf(generateSettings),
  Effect.fnUntraced(function*({ output }) {
    if (output === "") return yield* Console.log(newKey())
    const isWritten = yield* KeyFile.make(output)
    yield* Console.log(isWritten ? `wrote ${output}` : `${output} has a cluster key already, which stays`)
  })
).pipe(
  Command.withDescription("Make a new cluster key, and print it or write it to a file"),
  Command.withExamples([
    {
      command: "spegel cluster-key generate --output=/etc/spegel/cluster-key",
      description: "For nodes without Kubernetes; copy the file to each of them"
    }
  ])
)

const secretSettings = {
  namespace: one({
    description: "Namespace of the Secret",
    schema: optional(objectName),
    fallback: "",
    metavar: "NAME"
  }),
  secret: one({
    description: "Name of the Secret, which has the cluster key as its value key",
    schema: optional(objectName),
    fallback: "",
    metavar: "NAME"
  }),
  timeout: one({
    ...positiveDuration,
    description: "How long to try while the API server does not answer, or refuses",
    fallback: "1m"
  }),
  kubeconfigPath
}

type SecretSettings = {
  readonly namespace: Option.Option<string>
  readonly secret: Option.Option<string>
}

const secretName = Effect.fnUntraced(function*({ namespace, secret: name }: SecretSettings) {
  if (Option.isNone(namespace)) return yield* new SettingsInvalid({ flag: "namespace", reason: "is needed" })
  if (Option.isNone(name)) return yield* new SettingsInvalid({ flag: "secret", reason: "is needed" })
  return { namespace: namespace.value, name: name.value }
})

/** Loaded only when it is used: TLS takes memory. */
const loadKeySecret = Effect.promise(() => import("../cluster-key/KeySecret.ts"))

export const ensureSettings = {
  ...secretSettings,
  labels: many({
    description: "Label of a new Secret",
    schema: patternSchema("a label such as team=platform", /^[A-Za-z0-9._/-]{1,317}=[A-Za-z0-9._-]{0,63}$/),
    metavar: "KEY=VALUE"
  })
}

const ensure = Command.make(
  "ensure",
  flagsOf(ensureSettings),
  Effect.fnUntraced(function*({ kubeconfigPath: kubeconfig, labels, timeout, ...settings }) {
    const secret = yield* secretName(settings)
    const KeySecret = yield* loadKeySecret
    const isCreated = yield* KeySecret.ensure({
      ...secret,
      timeout,
      kubeconfig,
      environment: process.env,
      labels: Object.fromEntries(labels.map((label) => label.split("=", 2) as [string, string]))
    })
    const name = `the Secret ${secret.namespace}/${secret.name}`
    yield* Console.log(isCreated ? `created ${name} with a new cluster key` : `${name} has a cluster key, which stays`)
  })
).pipe(
  Command.withDescription("Create the Secret with a new cluster key, unless it exists"),
  Command.withExamples([
    {
      command: "spegel cluster-key ensure --namespace=spegel --secret=spegel-cluster-key",
      description: "As the chart's Job does before an installation"
    }
  ])
)

export const removeSettings = {
  ...secretSettings,
  daemonset: one({
    description: "DaemonSet of the mirrors, in the same namespace: while it exists, the Secret stays",
    schema: optional(objectName),
    fallback: "",
    metavar: "NAME"
  })
}

const remove = Command.make(
  "remove",
  flagsOf(removeSettings),
  Effect.fnUntraced(function*({ daemonset, kubeconfigPath: kubeconfig, timeout, ...settings }) {
    const secret = yield* secretName(settings)
    if (Option.isNone(daemonset)) return yield* new SettingsInvalid({ flag: "daemonset", reason: "is needed" })
    const KeySecret = yield* loadKeySecret
    const outcome = yield* KeySecret.remove({
      ...secret,
      timeout,
      kubeconfig,
      environment: process.env,
      daemonSet: daemonset.value
    })
    const name = `the Secret ${secret.namespace}/${secret.name}`
    const words = {
      "in use": `kept ${name}: the DaemonSet ${daemonset.value} is there`,
      missing: `${name} is not there`,
      removed: `removed ${name}`
    }
    yield* Console.log(words[outcome])
  })
).pipe(
  Command.withDescription("Delete the Secret with the cluster key, once no mirrors need it"),
  Command.withExamples([
    {
      command: "spegel cluster-key remove --namespace=spegel --secret=spegel-cluster-key --daemonset=spegel",
      description: "As the chart's Job does after an uninstall"
    }
  ])
)

export const clusterKey = Command.make("cluster-key").pipe(
  Command.withDescription("Make the secret that the mirrors of a cluster share"),
  Command.withSubcommands([generate, ensure, remove])
)
