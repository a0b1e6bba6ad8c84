/** A peer's bytes to clients. The peer is nginx, under the address of a member of the network that says it has them. */
import { createHash } from "node:crypto"
import type * as Bar from "../Bar.ts"
import { percentile } from "../Statistics.ts"
import { until } from "../Waiting.ts"
import * as Comparison from "./Comparison.ts"
import * as Content from "./Content.ts"
import type { Target } from "./Load.ts"
import type { Running } from "./Processes.ts"
import { cpu, largeSize, plan, query, ratioBar, type Result, withServers } from "./serve.ts"
import * as Servers from "./Servers.ts"

/** GiB per second that one core hashes. */
const sha256Speed = (): number => {
  const chunk = Buffer.alloc(1024 ** 2)
  const speeds = Array.from({ length: 5 }, () => {
    const hash = createHash("sha256")
    const before = process.cpuUsage()
    for (let mib = 0; mib < 256; mib++) hash.update(chunk)
    const { system, user } = process.cpuUsage(before)
    return 0.25 / ((user + system) / 1e6)
  })
  return percentile(speeds, 0.5)
}

/**
 * How many times the CPU a GiB of nginx's proxy and the peer together spegel-ts and the peer take. On one machine the
 * kernel charges the peer's sending to whichever of the two is slower.
 */
interface WithPeer {
  readonly clients: number
  readonly ratio: number | undefined
}

/**
 * A daemon without content, and a peer of it. The peer is two processes: a daemon that tells of the content, and nginx
 * that has it, at the daemon's address and the port that registries of this network have.
 */
export const startRelay = async (
  directory: string,
  port: number,
  started: (server: Promise<Running>) => Promise<Running>
) => {
  const mirror = { host: "127.8.0.2", port }
  const peer = { host: "127.8.0.3", port }
  const holder = await started(
    Servers.spegel(directory, { host: "127.8.0.4", port }, {
      store: "layout",
      routerHost: peer.host,
      bootstrap: mirror
    })
  )
  const files = await started(Servers.nginxFiles(directory, peer))
  const relay = await started(Servers.spegel(directory, mirror, { store: "empty", bootstrap: peer }))
  return { mirror, peer, relay, pids: [holder.pid, files.pid] }
}

/** Waits until the mirror finds the peer. */
export const untilFound = async (mirror: Servers.Address, path: string): Promise<void> => {
  const limitMillis = 30_000
  const url = `http://${mirror.host}:${mirror.port}${path}`
  const waited = await until(async () => {
    const response = await fetch(url, { method: "HEAD" }).catch(() => undefined)
    return response?.status === 200
  }, limitMillis)
  if (waited >= limitMillis) throw new Error(`the mirror does not find ${url}`)
}

export const relay = (options: {
  readonly rounds: number
  readonly port: number
  readonly others: ReadonlyArray<Target>
}): Promise<Result & { readonly sha256GibPerSecond: number; readonly withPeer: ReadonlyArray<WithPeer> }> =>
  withServers(async (directory, started) => {
    if (Servers.nginxPath === undefined) {
      throw new Error("nginx is the peer here: install it (apt-get install nginx-light)")
    }
    const large = await Content.blob(directory, largeSize)
    const small = await Content.blob(directory, 1024)
    const { mirror, peer, pids, relay } = await startRelay(directory, options.port, started)
    await untilFound(mirror, large.path + query)
    await untilFound(mirror, small.path + query)
    const at = (index: number) => ({ host: "127.8.0.5", port: options.port + 10 * index })
    const paths = { path: large.path + query, smallPath: small.path + query }
    const verified: Target = { name: "spegel-ts verified", pid: relay.pid, ...mirror, ...paths, fields: [] }
    const target = async (name: string, address: Servers.Address, server: Promise<Running>): Promise<Target> => ({
      name,
      pid: (await started(server)).pid,
      ...address,
      ...paths,
      fields: []
    })
    const targets: ReadonlyArray<Target> = [
      // A part cannot be verified: all but the first byte is the same way without hashing.
      { ...verified, name: "spegel-ts", fields: ["range: bytes=1-\r\n"] },
      verified,
      await target("nginx proxy", at(0), Servers.nginxProxy(directory, at(0), peer)),
      await target("node:http pipe", at(1), Servers.node("relay", at(1), `http://${peer.host}:${peer.port}`)),
      ...options.others
    ]
    const sha256Before = sha256Speed()
    const comparison = await Comparison.run(targets, plan(options.rounds), [
      ...pids,
      ...new Set(targets.flatMap(({ pid }) => pid ?? []))
    ])
    const sha256GibPerSecond = (sha256Before + sha256Speed()) / 2
    const figuresOf = (name: string, clients: number) =>
      comparison.figures.find((figures) => figures.implementation === name && figures.clients === clients)
    const withPeer = [1, 8].map((clients): WithPeer => ({
      clients,
      ratio: comparison.ratio(
        ({ serversCpuSecondsPerGib }) => serversCpuSecondsPerGib,
        "spegel-ts",
        "nginx proxy",
        clients
      )
    }))
    const bars: ReadonlyArray<Bar.Bar> = [
      ...[1, 8].flatMap((clients) => [
        ratioBar(
          `relaying, CPU a GiB, of node:http pipe, ${clients} clients`,
          comparison.ratio(cpu, "spegel-ts", "node:http pipe", clients),
          0.35
        ),
        ratioBar(
          `relaying, CPU a GiB, of nginx's buffered proxy, ${clients} clients`,
          comparison.ratio(cpu, "spegel-ts", "nginx proxy", clients),
          1.2
        ),
        ratioBar(
          `relaying verified, speed, of one core's sha256, ${clients} clients`,
          (figuresOf("spegel-ts verified", clients)?.gibPerSecond ?? 0) / sha256GibPerSecond,
          0.7,
          true
        )
      ]).flat(),
      {
        name: "first byte of 1 KiB during 8 verified relays, p99",
        value: figuresOf("spegel-ts verified", 8)?.firstByteMs ?? Infinity,
        bound: 30,
        unit: "ms"
      }
    ]
    return { figures: comparison.figures, otherCpus: comparison.otherCpus, bars, sha256GibPerSecond, withPeer }
  })
