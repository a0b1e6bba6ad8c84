import { Duration, Effect, Option } from "effect"
import { Command } from "effect/cli"
import * as CleanupProbe from "../cleanup/CleanupProbe.ts"
import { one } from "../cli/Flags.ts"
import { GoDuration, PositiveGoDuration } from "../cli/GoDuration.ts"
import * as GoInteger from "../cli/GoInteger.ts"
import { textSchema } from "../cli/TextSchema.ts"
import { bootstrapFlags } from "./bootstrap.ts"
import { SettingsInvalid } from "./shared.ts"

interface Endpoint {
  readonly host: string
  readonly port: number
}

const endpoint = textSchema<Option.Option<Endpoint>>({
  expected: "a host and a port, such as spegel-cleanup.spegel.svc.cluster.local:8080",
  parse: (text) => {
    if (text === "") return Option.some(Option.none())
    const match = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9_.-]+)):(\d{1,5})$/.exec(text)
    const [host, port] = [match?.[1] ?? match?.[2] ?? "", Number(match?.[3])]
    return host !== "" && port >= 1 && port <= 65_535 ? Option.some(Option.some({ host, port })) : Option.none()
  },
  print: Option.match({
    onNone: () => "",
    onSome: ({ host, port }) => host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`
  })
})

/** `NAMESPACE/NAME` of a Kubernetes object. */
interface Named {
  readonly namespace: string
  readonly name: string
}

const named = textSchema<Option.Option<Named>>({
  expected: "a namespace and a name, such as spegel/spegel-cleanup",
  parse: (text) => {
    if (text === "") return Option.some(Option.none())
    const [, namespace, name] = /^([a-z0-9-]{1,63})\/([a-z0-9.-]{1,253})$/.exec(text) ?? []
    return namespace === undefined || name === undefined ? Option.none() : Option.some(Option.some({ namespace, name }))
  },
  print: Option.match({ onNone: () => "", onSome: ({ name, namespace }) => `${namespace}/${name}` })
})

const flags = {
  daemonset: one({
    name: "daemonset",
    description: "The cleanups' DaemonSet, of which the Kubernetes API is asked; this or --probe-endpoint is needed",
    schema: named,
    fallback: "",
    metavar: "NAMESPACE/NAME"
  }),
  mirrorDaemonset: one({
    name: "mirror-daemonset",
    description:
      "The mirrors' DaemonSet in the same namespace: nodes on which it just ran are named where they are left",
    schema: textSchema<string>({
      expected: "a name",
      parse: (text) => /^[a-z0-9.-]{0,253}$/.test(text) ? Option.some(text) : Option.none(),
      print: (name) => name
    }),
    fallback: "",
    metavar: "NAME"
  }),
  kubeconfigPath: bootstrapFlags.kubeconfigPath,
  probeEndpoint: one({
    name: "probe-endpoint",
    description: "Where the cleanups answer: a name with the addresses of all of them, and their port",
    schema: endpoint,
    fallback: "",
    metavar: "HOST:PORT"
  }),
  timeout: one({
    name: "timeout",
    description: "When to give up; the DaemonSet's age, where one is given. 0 for never",
    schema: GoDuration,
    fallback: "0s",
    metavar: "DURATION"
  }),
  threshold: one({
    name: "threshold",
    description: "How many rounds in a row must find all of them done",
    schema: GoInteger.between("a number of rounds", 1, 1000),
    fallback: "3",
    metavar: "NUMBER"
  }),
  period: one({
    name: "period",
    description: "How long to wait between two rounds",
    schema: PositiveGoDuration,
    fallback: "2s",
    metavar: "DURATION"
  })
}

export const cleanupWait = Command.make(
  "cleanup-wait",
  flags,
  Effect.fnUntraced(function*({ daemonset, kubeconfigPath, mirrorDaemonset, probeEndpoint, ...flags }) {
    const timeout = Option.some(flags.timeout).pipe(Option.filter(Duration.isGreaterThan(Duration.zero)))
    const options = { ...flags, timeout }
    if (Option.isSome(daemonset)) {
      // Loaded only where it is used: TLS takes memory.
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
).pipe(Command.withDescription("Wait until all nodes are restored, and say which are and which are not"))
