import { Option } from "effect"
import { Command } from "effect/cli"
import * as CleanupProbe from "../CleanupProbe.ts"
import { one } from "../Flags.ts"
import { PositiveGoDuration } from "../GoDuration.ts"
import * as GoInteger from "../GoInteger.ts"
import { textSchema } from "../TextSchema.ts"

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

const flags = {
  probeEndpoint: one({
    name: "probe-endpoint",
    description: "Where the cleanups answer: a name with the addresses of all of them, and their port; needed",
    schema: endpoint,
    fallback: "",
    metavar: "HOST:PORT"
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
  ({ probeEndpoint, ...options }) => CleanupProbe.wait({ ...probeEndpoint, ...options })
).pipe(Command.withDescription("Wait until the cleanup of every node is done"))
