import { Duration, Effect, Option } from "effect"
import { Command } from "effect/cli"
import * as CleanupProbe from "../cleanup/CleanupProbe.ts"
import * as GoInteger from "../cli/GoInteger.ts"
import { flagsOf, one } from "../cli/Setting.ts"
import { optional, patternSchema, textSchema } from "../cli/TextSchema.ts"
import { SettingsInvalid } from "../settings/SettingsInvalid.ts"
import { duration, kubeconfigPath, positiveDuration } from "../settings/SharedSettings.ts"

interface Endpoint {
  readonly host: string
  readonly port: number
}

const endpoint = textSchema<Endpoint>({
  expected: "a host and a port, such as spegel-cleanup.spegel.svc.cluster.local:8080",
  parse: (text) => {
    const match = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9_.-]+)):(\d{1,5})$/.exec(text)
    const [host, port] = [match?.[1] ?? match?.[2] ?? "", Number(match?.[3])]
    return host !== "" && port >= 1 && port <= 65_535 ? Option.some({ host, port }) : Option.none()
  },
  print: ({ host, port }) => host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`
})

/** A Kubernetes object, which users write as `NAMESPACE/NAME`. */
interface NamespacedName {
  readonly namespace: string
  readonly name: string
}

const namespacedName = textSchema<NamespacedName>({
  expected: "a namespace and a name, such as spegel/spegel-cleanup",
  parse: (text) => {
    const [, namespace, name] = /^([a-z0-9-]{1,63})\/([a-z0-9.-]{1,253})$/.exec(text) ?? []
    return namespace === undefined || name === undefined ? Option.none() : Option.some({ namespace, name })
  },
  print: ({ name, namespace }) => `${namespace}/${name}`
})

export const cleanupWaitSettings = {
  daemonset: one({
    description: "Cleanup DaemonSet, whose state is read from the Kubernetes API; this or --probe-endpoint is needed",
    schema: optional(namespacedName),
    fallback: "",
    metavar: "NAMESPACE/NAME"
  }),
  mirrorDaemonset: one({
    description:
      "DaemonSet of the mirrors, in the same namespace: nodes where it just ran are named too if they are not restored",
    schema: patternSchema("a name", /^[a-z0-9.-]{0,253}$/),
    fallback: "",
    metavar: "NAME"
  }),
  kubeconfigPath,
  probeEndpoint: one({
    description: "Where the cleanup pods answer: a name that resolves to all of them, and their port",
    schema: optional(endpoint),
    fallback: "",
    metavar: "HOST:PORT"
  }),
  timeout: one({
    ...duration,
    description: "When to give up, counted from the DaemonSet's creation if one is given; 0 for never",
    fallback: "0s"
  }),
  threshold: one({
    description: "How many rounds in a row must find all nodes restored",
    schema: GoInteger.between("a number of rounds", 1, 1000),
    fallback: "3",
    metavar: "NUMBER"
  }),
  period: one({
    ...positiveDuration,
    description: "How long to wait between two rounds",
    fallback: "2s"
  })
}

export const cleanupWait = Command.make(
  "cleanup-wait",
  flagsOf(cleanupWaitSettings),
  Effect.fnUntraced(function*({ daemonset, kubeconfigPath, mirrorDaemonset, probeEndpoint, ...settings }) {
    const timeout = Option.some(settings.timeout).pipe(Option.filter(Duration.isGreaterThan(Duration.zero)))
    const options = { ...settings, timeout }
    if (Option.isSome(daemonset)) {
      // Loaded only when it is used: TLS takes memory.
      const CleanupWait = yield* Effect.promise(() => import("../cleanup/CleanupWait.ts"))
      return yield* CleanupWait.wait({
        ...options,
        kubeconfig: kubeconfigPath,
        environment: process.env,
        namespace: daemonset.value.namespace,
        daemonSet: daemonset.value.name,
        mirrorDaemonSet: mirrorDaemonset
      })
    }
    if (Option.isSome(probeEndpoint)) return yield* CleanupProbe.wait({ ...options, ...probeEndpoint.value })
    return yield* new SettingsInvalid({ flag: "probe-endpoint", reason: "or --daemonset is needed" })
  })
).pipe(
  Command.withDescription("Wait until all nodes are restored, and say which are and which are not"),
  Command.withExamples([
    {
      command: "spegel cleanup-wait --daemonset=spegel/spegel-cleanup --timeout=2m",
      description: "In the chart's Job at uninstall"
    }
  ])
)
