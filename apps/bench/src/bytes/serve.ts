/** Serves own content to clients on another host: large blobs and small manifests. */
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Bar from "../Bar.ts"
import * as Comparison from "./Comparison.ts"
import * as Content from "./load/Content.ts"
import type { Target } from "./load/Load.ts"
import type { Hosts } from "./load/Network.ts"
import type { Running } from "./load/Processes.ts"
import * as Servers from "./load/Servers.ts"
import { type ManifestFigures, manifests } from "./manifests.ts"

/** The result of a benchmark. */
export interface Result extends Pick<Comparison.Comparison, "figures" | "otherCpus"> {
  readonly bars: ReadonlyArray<Bar.Bar>
}

const mib = 1024 ** 2
export const largeSize = 256 * mib
export const query = "?ns=registry.example"

export type Started = (server: Promise<Running>) => Promise<Running>

/** Runs `use` with a directory of content, and then ends the servers that it started. */
export const withServers = async <A>(use: (directory: string, started: Started) => Promise<A>): Promise<A> => {
  const directory = await mkdtemp(join(tmpdir(), "spegel-bench-"))
  const running: Array<Running> = []
  try {
    await Content.make(directory)
    return await use(directory, async (server) => {
      running.push(await server)
      return server
    })
  } finally {
    await Promise.all(running.map((server) => server.stop()))
    await rm(directory, { recursive: true, force: true })
  }
}

export const serve = (options: {
  readonly hosts: Hosts
  readonly rounds: number
  readonly port: number
  readonly others: ReadonlyArray<Target>
}): Promise<Result & { readonly manifests: ManifestFigures }> =>
  withServers(async (directory, started) => {
    const large = await Content.blob(directory, largeSize)
    const small = await Content.blob(directory, 1024)
    const manifest = await Content.manifest(directory, 1024)
    const at = (number: number) => Servers.at(options.hosts.far, number, options.port)
    const target = async (name: string, address: Servers.Address, server: Promise<Running>): Promise<Target> => ({
      name,
      pid: (await started(server)).pid,
      ...address,
      path: large.path + query,
      smallPath: small.path + query
    })
    const daemon = (plane: Servers.Plane, number: number) =>
      target(plane, at(number), Servers.spegel(directory, at(number), { store: "layout", plane }))
    const comparison = await Comparison.run([
      await daemon("zero-copy", 1),
      await daemon("portable", 2),
      ...(Servers.nginxPath === undefined
        ? []
        : [await target("nginx sendfile", at(3), Servers.nginxFiles(directory, at(3)))]),
      await target("node:http", at(4), Servers.node("serve", at(4), Content.files(directory))),
      ...options.others
    ], options.rounds)
    await started(Servers.node("manifest", at(5), String(manifest.size)))
    const requests = await manifests({ ...at(1), path: manifest.path + query }, { ...at(5), path: "/" }, options.rounds)
    return {
      ...comparison,
      manifests: requests,
      bars: [
        ...comparison.bars(
          "zero-copy, CPU a GiB, of nginx with sendfile",
          ({ cpuSecondsPerGib }) => cpuSecondsPerGib,
          { implementation: "zero-copy", yardstick: "nginx sendfile" },
          1.25
        ),
        {
          name: "small manifests a second, of bare node:http",
          value: requests.ratio,
          bound: 0.7,
          unit: Bar.times,
          atLeast: true
        }
      ]
    }
  })
