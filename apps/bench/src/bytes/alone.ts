/** How soon a node knows that it is the one which downloads content: nobody has it, and nobody else asks for it. */
import * as ClusterKeys from "@spegel-ts/testing/ClusterKeys"
import { Effect } from "effect"
import { join } from "node:path"
import type * as Bar from "../Bar.ts"
import * as Latency from "./latency.ts"
import { Asker } from "./load/Asker.ts"
import type { Hosts } from "./load/Network.ts"
import * as Servers from "./load/Servers.ts"
import { withServers } from "./serve.ts"

/** Asks for manifests that nobody has, with the token of the node's own containerd. */
const aloneAt = (hosts: Hosts, port: number, mode: "off" | "single-flight"): Promise<Latency.Latencies> =>
  withServers(async (directory, started) => {
    const key = await Effect.runPromise(ClusterKeys.writeTo(join(directory, "key")))
    const [peer, mirror] = [hosts.far, hosts.near].map((host) => Servers.at(host, 1, port))
    if (peer === undefined || mirror === undefined) throw new Error("there are two hosts")
    const flags = (name: string) => [`--in-progress=${mode}`, key.flag, `--node-name=${name}`]
    await started(Servers.spegel(directory, peer, { store: "layout", flags: flags("far") }))
    await started(Servers.spegel(directory, mirror, { store: "empty", bootstrap: peer, flags: flags("near") }))
    await Latency.waitFor(
      `http://${mirror.host}:${port + 2}/metrics`,
      (text) => /^spegel_peer_auth_members\{[^}]*proved="true"[^}]*\} 1$/m.test(text)
    )
    const asker = new Asker(mirror, [`authorization: Bearer ${key.tokenOf("near")}`, "user-agent: containerd/2.1.9"])
    const paths = Latency.missing("manifests", Latency.warmUps + Latency.blobs)
    await Latency.askAll(asker, "to warm up", paths.slice(0, Latency.warmUps), 404)
    const measured = await Latency.askAll(asker, `alone, ${mode}`, paths.slice(Latency.warmUps), 404)
    asker.close()
    return measured
  })

/** What it costs to be the first: that nobody else downloads content has to be found out. */
export const alone = async (
  hosts: Hosts,
  port: number
): Promise<{ readonly figures: ReadonlyArray<Latency.Latencies>; readonly bars: ReadonlyArray<Bar.Bar> }> => {
  const off = await aloneAt(hosts, port, "off")
  const singleFlight = await aloneAt(hosts, port, "single-flight")
  return {
    figures: [off, singleFlight],
    bars: [{ name: "alone, single-flight, p50", value: singleFlight.p50, bound: 3, unit: "ms" }]
  }
}
