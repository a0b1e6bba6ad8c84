/** Other ways to the first peers, and from containerd to the mirror. */
import { Effect } from "effect"
import type { Installation } from "../Installation.ts"
import * as Steps from "../Steps.ts"

const mirrorsOf = Effect.fnUntraced(function*({ nodes }: Installation) {
  const files = yield* Effect.forEach(nodes, (node) => node.run("cat", "/etc/containerd/certs.d/_default/hosts.toml"))
  return files.map((text) =>
    [...text.matchAll(/^\[host\.'?"?http:\/\/[^:]+:(\d+)/gm)].map(([, port]) => port).join(",")
  )
})

/** A Lease's holder is the first peer. */
export const kubernetesBootstrap = Effect.fnUntraced(function*(installation: Installation) {
  yield* installation.apply(["spegel.bootstrapKinds={kubernetes}"])
  const leases = yield* installation.inNamespace("get", "leases", "-o", "name")
  yield* Steps.promise(leases.trim() !== "", "there is no Lease")
  return yield* installation.pullEverywhere()
})

/** A port of the node that leads to its own pod only, and behind it the port that leads to any. */
export const hostPort = Effect.fnUntraced(function*(installation: Installation) {
  yield* installation.apply(["service.registry.usePreferSameNodeTrafficDistribution=false"])
  const ports = yield* mirrorsOf(installation)
  yield* Steps.promise(ports.every((text) => text === "30021,30020"), `the mirrors' ports are ${ports.join(" and ")}`)
  return yield* installation.pullEverywhere()
})

/** Back to what the chart says: one port, which prefers the pod of the same node. */
export const nodePort = Effect.fnUntraced(function*(installation: Installation) {
  yield* installation.apply()
  const ports = yield* mirrorsOf(installation)
  yield* Steps.promise(ports.every((text) => text === "30020"), `the mirrors' ports are ${ports.join(" and ")}`)
  return yield* installation.pullEverywhere()
})

/** Mirrors are strangers to each other after each restart, and nothing is written to the node for them. */
export const withoutPersistence = Effect.fnUntraced(function*(installation: Installation) {
  const { apply, nodes, pullEverywhere, remove, restart } = installation
  const off = ["spegel.persistence.enabled=false"]
  yield* remove
  yield* apply(off)
  yield* restart
  const kept = yield* Effect.forEach(nodes, (node) => node.run("find", "/var/lib/spegel", "!", "-type", "d"))
  yield* Steps.promise(kept.join("") === "", `there is ${kept.join(" ")}`)
  const figures = yield* pullEverywhere()
  yield* remove
  yield* apply()
  return figures
})

/** The cluster's DNS is down: mirrors that run know their peers. */
export const dnsDown = (installation: Installation) =>
  Effect.scoped(Effect.andThen(installation.cluster.withoutDns, installation.pullEverywhere()))
