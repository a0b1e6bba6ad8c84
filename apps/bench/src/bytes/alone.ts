/** How soon a node knows that it is the one which downloads content: nobody has it, and nobody else asks for it. */
import * as ClientToken from "@spegel-ts/cluster-key/ClientToken"
import * as KeyRing from "@spegel-ts/cluster-key/KeyRing"
import { Result } from "effect"
import { createHash } from "node:crypto"
import { writeFile } from "node:fs/promises"
import { join } from "node:path"
import type * as Bar from "../Bar.ts"
import { percentile } from "../Statistics.ts"
import * as Latency from "./latency.ts"
import { Asker } from "./load/Asker.ts"
import type { Hosts } from "./load/Network.ts"
import * as Servers from "./load/Servers.ts"
import { query, withServers } from "./serve.ts"

/** Asks for manifests that nobody has, with the token of the node's own containerd. */
const aloneAt = (hosts: Hosts, port: number, mode: "off" | "single-flight"): Promise<Latency.Latencies> =>
  withServers(async (directory, started) => {
    const keyFile = join(directory, "key")
    const key = KeyRing.generate()
    await writeFile(keyFile, `${key}\n`, { mode: 0o600 })
    const [peer, mirror] = [hosts.far, hosts.near].map((host) => Servers.at(host, 1, port))
    if (peer === undefined || mirror === undefined) throw new Error("there are two hosts")
    const flags = (name: string) => [`--in-progress=${mode}`, `--cluster-key-file=${keyFile}`, `--node-name=${name}`]
    await started(Servers.spegel(directory, peer, { store: "layout", flags: flags("far") }))
    await started(Servers.spegel(directory, mirror, { store: "empty", bootstrap: peer, flags: flags("near") }))
    await Latency.waitFor(
      `http://${mirror.host}:${port + 2}/metrics`,
      (text) => /^spegel_peer_auth_members\{[^}]*proved="true"[^}]*\} 1$/m.test(text)
    )
    const token = ClientToken.make(Result.getOrThrow(KeyRing.KeyRing.parse(key)), "near")
    const asker = new Asker(mirror, [`authorization: Bearer ${token}`, "user-agent: containerd/2.1.9"])
    const millis: Array<number> = []
    let others = 0
    for (const path of missingManifests(Latency.warmUps + Latency.blobs)) {
      const answer = await asker.ask(path)
      if (answer.status === 404) millis.push(answer.millis)
      else others++
    }
    asker.close()
    const measured = millis.slice(Latency.warmUps)
    const name = `alone, ${mode}`
    return { name, count: measured.length, others, p50: percentile(measured, 0.5), p99: percentile(measured, 0.99) }
  })

const missingManifests = (count: number) =>
  Array.from({ length: count }, (_, index) => {
    const digest = createHash("sha256").update(`missing manifest ${index}`).digest("hex")
    return `/v2/bench/manifests/sha256:${digest}${query}`
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
