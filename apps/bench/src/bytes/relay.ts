/**
 * Relays a peer's bytes to clients on the mirror's host. The peer is nginx on another host, under the address of a member of the
 * network that advertises the content.
 */
import * as Bar from "../Bar.ts"
import { untilDone } from "../Waiting.ts"
import * as Comparison from "./Comparison.ts"
import * as Content from "./load/Content.ts"
import type { Target } from "./load/Load.ts"
import type { Hosts } from "./load/Network.ts"
import * as Servers from "./load/Servers.ts"
import { largeSize, query, type Result, type Started, withServers } from "./serve.ts"

/** Starts a member that advertises the content, and nginx on the port that it names for its registry. */
export const startPeer = async (directory: string, { far }: Hosts, port: number, started: Started) => {
  const peer = Servers.at(far, 1, port)
  await started(Servers.spegel(directory, Servers.at(far, 2, port), { store: "layout", routerHost: peer.host }))
  const files = await started(Servers.nginxFiles(directory, peer))
  return { peer, pid: files.pid }
}

/** Starts a daemon without content, and waits until it finds the peer. */
export const startMirror = async (
  directory: string,
  address: Servers.Address,
  options: { readonly plane: Servers.Plane; readonly peer: Servers.Address; readonly paths: ReadonlyArray<string> },
  started: Started
) => {
  const { paths, peer: bootstrap, plane } = options
  const { pid } = await started(
    Servers.spegel(directory, address, { store: "empty", plane, bootstrap, flags: Servers.patient })
  )
  for (const path of paths) {
    const url = `http://${address.host}:${address.port}${path}`
    await untilDone(
      () => fetch(url, { method: "HEAD" }).then(({ status }) => status === 200, () => false),
      30_000,
      `the mirror does not find ${url}`
    )
  }
  return pid
}

export const relay = (options: {
  readonly hosts: Hosts
  readonly rounds: number
  readonly port: number
  readonly others: ReadonlyArray<Target>
}): Promise<Result> =>
  withServers(async (directory, started) => {
    if (Servers.nginxPath === undefined) {
      throw new Error("nginx is the peer here: install it (apt-get install nginx-light)")
    }
    const { hosts, port } = options
    const large = await Content.blob(directory, largeSize)
    const small = await Content.blob(directory, 1024)
    const paths = { path: large.path + query, smallPath: small.path + query }
    const { peer, pid: peerPid } = await startPeer(directory, hosts, port, started)
    const at = (number: number) => Servers.at(hosts.near, number, port)
    const daemon = async (plane: Servers.Plane, number: number): Promise<Target> => {
      const mirror = { plane, peer, paths: Object.values(paths) }
      return { name: plane, pid: await startMirror(directory, at(number), mirror, started), ...at(number), ...paths }
    }
    const proxy = await started(Servers.nginxProxy(directory, at(3), peer))
    const node = await started(Servers.node("relay", at(4), `http://${peer.host}:${peer.port}`))
    const comparison = await Comparison.run(
      [
        await daemon("zero-copy", 1),
        await daemon("portable", 2),
        { name: "nginx proxy", pid: proxy.pid, ...at(3), ...paths },
        { name: "node:http", pid: node.pid, ...at(4), ...paths },
        ...options.others
      ],
      options.rounds,
      peerPid
    )
    const p99 = (name: string, clients: number) =>
      comparison.figures.find((line) => line.implementation === name && line.clients === clients)?.firstByteMs?.p99 ??
        NaN
    const busy = p99("zero-copy", 8)
    const yardstick = "nginx proxy"
    const zeroCopy = { implementation: "zero-copy", yardstick }
    const portable = { implementation: "portable", yardstick }
    return {
      ...comparison,
      bars: [
        ...comparison.bars("zero-copy, CPU a GiB, of nginx's proxy", cpu, zeroCopy, 0.7),
        ...comparison.bars(
          "zero-copy, speed, of nginx's proxy",
          ({ gibPerSecond }) => gibPerSecond,
          zeroCopy,
          1,
          true
        ),
        ...comparison.bars("portable, CPU a GiB, of nginx's proxy", cpu, portable, 1.2),
        ...[
          ["nginx's proxy", p99("nginx proxy", 8), 1] as const,
          ["its own when idle", p99("zero-copy", 0), 3] as const
        ].map(([whose, theirs, bound]) => ({
          name: `zero-copy, first byte under 8 relays, p99, of ${whose}`,
          value: busy / theirs,
          bound,
          unit: Bar.times
        }))
      ]
    }
  })

const cpu = ({ cpuSecondsPerGib }: { readonly cpuSecondsPerGib: number | undefined }) => cpuSecondsPerGib
