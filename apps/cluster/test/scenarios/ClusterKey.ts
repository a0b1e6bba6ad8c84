/** The key that the mirrors share: who has none is served nothing, and it is replaced while kubelets pull. */
import { generate } from "@spegel-ts/cluster-key/KeyRing"
import { Console, Effect } from "effect"
import { inUrl } from "../Addresses.ts"
import { eventually } from "../Cluster.ts"
import type { Installation } from "../Installation.ts"
import * as Steps from "../Steps.ts"
import { judge, pullDuring, pullInPeace, usual } from "./PullsMeanwhile.ts"

const secret = "spegel-cluster-key"

/** A mirror's metrics. */
const metricsOf = Effect.fnUntraced(function*(installation: Installation, node: Installation["nodes"][number]) {
  const address = yield* installation.addressOn(node)
  return yield* node.run("curl", "-sf", `http://${inUrl(address)}:9090/metrics`)
})

/** How many members a mirror has that have proved the key, or have not. */
const members = (metrics: string, proved: boolean): number =>
  Number(new RegExp(`^spegel_peer_auth_members\\{[^}]*proved="${proved}"[^}]*\\} (\\d+)$`, "m").exec(metrics)?.[1])

/** All mirrors are peers of all others by the key, and a client without a token gets nothing. */
export const proved = Effect.fnUntraced(function*(installation: Installation) {
  const { nodes } = installation
  const others = nodes.length - 1
  yield* eventually(
    "all mirrors have proved the key to all others",
    "60 seconds",
    Effect.forEach(nodes, (node) =>
      Effect.flatMap(metricsOf(installation, node), (metrics) => {
        const isProved = members(metrics, true)
        const unproved = members(metrics, false)
        return Steps.promise(
          isProved === others && unproved === 0,
          `${node.nodeName}: ${isProved} proved, ${unproved} not`
        )
      }))
  )
  const [node] = nodes
  if (node === undefined) return ""
  const address = yield* installation.addressOn(node)
  const url = `http://${inUrl(address)}:5000/v2/team/app/tags/list?ns=any`
  const told = yield* node.run("curl", "-s", "-w", " %{http_code} %header{www-authenticate}", url)
  yield* Steps.promise(told.endsWith(" 404 "), `a client without a token was told: ${told}`)
  return `${others} proved peers; without a token: ${told.trim()}`
})

/** The key's lines, in base64 as the Secret has them. */
const readKeys = ({ inNamespace }: Installation) =>
  Effect.map(
    inNamespace("get", "secret", secret, "-o", "jsonpath={.data.key}"),
    (text) => Buffer.from(text, "base64").toString("utf8")
  )

const writeKeys = ({ inNamespace }: Installation, keys: string) => {
  const change = { data: { key: Buffer.from(keys).toString("base64") } }
  return inNamespace("patch", "secret", secret, "--patch", JSON.stringify(change))
}

/** Waits until all mirrors have read a file with other keys than before. */
const keysRead = (installation: Installation, since: string) =>
  eventually(
    "all mirrors have read the changed key",
    "4 minutes",
    Effect.flatMap(
      installation.inNamespace(
        "logs",
        "-l",
        "app.kubernetes.io/component=spegel",
        "--tail=-1",
        `--since-time=${since}`
      ),
      (logs) => {
        const read = logs.split("\n").filter((line) => line.includes("the cluster key file has changed")).length
        return Steps.promise(read >= installation.nodes.length, `${read} mirrors have`)
      }
    )
  )

const now = Effect.sync(() => new Date().toISOString())

/** Adds a key, restarts the mirrors so that containerd has tokens of it, and drops the old key. */
export const replaced = Effect.fnUntraced(function*(installation: Installation) {
  const quiet = yield* pullInPeace(installation)
  const old = yield* readKeys(installation)
  const changed = (keys: string) =>
    Effect.flatMap(now, (since) => Effect.andThen(writeKeys(installation, keys), keysRead(installation, since)))
  const added = generate()
  const phases = [
    { name: "add", change: changed(`${added}\n${old}`) },
    { name: "roll", change: installation.restart },
    { name: "drop", change: changed(`${added}\n`) }
  ]
  const figures = yield* Effect.forEach(phases, ({ change, name }) =>
    pullDuring(installation, change).pipe(
      Effect.flatMap((busy) => judge(installation, quiet, busy, usual)),
      Effect.map((figures) => `${name}: ${figures}`),
      Effect.mapError((error) => new Steps.NotAsPromised({ reason: `${name}: ${error.message}` })),
      Effect.tap(Console.log)
    ))
  yield* proved(installation)
  return figures.join(". ")
})
