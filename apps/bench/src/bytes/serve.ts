/** Own content to clients: large blobs, and small manifests. */
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Bar from "../Bar.ts"
import * as Comparison from "./Comparison.ts"
import * as Content from "./Content.ts"
import type { Target } from "./Load.ts"
import { type ManifestFigures, manifests } from "./manifests.ts"
import type { Running } from "./Processes.ts"
import * as Servers from "./Servers.ts"

/** What a run gives; `otherCpus` says how quiet the machine was. */
export interface Result {
  readonly figures: ReadonlyArray<Comparison.Figures>
  readonly bars: ReadonlyArray<Bar.Bar>
  readonly otherCpus: number
}

const mib = 1024 ** 2
export const largeSize = 256 * mib
export const query = "?ns=registry.example"

export const plan = (rounds: number): Comparison.Plan => ({
  rounds,
  loads: [{ clients: 1, requests: 8 }, { clients: 8, requests: 2 }]
})

/** Runs `use` with a directory of content, and ends what it started. */
export const withServers = async <A>(
  use: (directory: string, started: (server: Promise<Running>) => Promise<Running>) => Promise<A>
): Promise<A> => {
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

export const cpu = ({ cpuSecondsPerGib }: { readonly cpuSecondsPerGib: number | undefined }) => cpuSecondsPerGib

/** A bar for a ratio, where both were measured. */
export const ratioBar = (name: string, value: number | undefined, bound: number, atLeast = false): Array<Bar.Bar> =>
  value === undefined ? [] : [{ name, value, bound, unit: Bar.times, atLeast }]

export const serve = (options: {
  readonly rounds: number
  readonly port: number
  readonly others: ReadonlyArray<Target>
}): Promise<Result & { readonly manifests: ManifestFigures }> =>
  withServers(async (directory, started) => {
    const large = await Content.blob(directory, largeSize)
    const small = await Content.blob(directory, 1024)
    const manifest = await Content.manifest(directory, 1024)
    const at = (index: number) => ({ host: "127.8.0.1", port: options.port + 10 * index })
    const target = async (name: string, address: Servers.Address, server: Promise<Running>): Promise<Target> => ({
      name,
      pid: (await started(server)).pid,
      ...address,
      path: large.path + query,
      smallPath: small.path + query,
      fields: []
    })
    const spegel = await target("spegel-ts", at(0), Servers.spegel(directory, at(0), { store: "layout" }))
    const targets = [
      spegel,
      ...(Servers.nginxPath === undefined
        ? []
        : [await target("nginx sendfile", at(1), Servers.nginxFiles(directory, at(1)))]),
      await target("createReadStream", at(2), Servers.node("serve", at(2), Content.files(directory))),
      ...options.others
    ]
    const pids = targets.flatMap(({ pid }) => pid ?? [])
    const comparison = await Comparison.run(targets, plan(options.rounds), pids)
    await started(Servers.node("manifest", at(3), String(manifest.size)))
    const requests = await manifests({ ...at(0), path: manifest.path + query }, { ...at(3), path: "/" }, options.rounds)
    return {
      figures: comparison.figures,
      otherCpus: comparison.otherCpus,
      manifests: requests,
      bars: [
        ...[1, 8].flatMap((clients) => [
          ratioBar(
            `serving, CPU a GiB, of nginx with sendfile, ${clients} clients`,
            comparison.ratio(cpu, "spegel-ts", "nginx sendfile", clients),
            2.8
          ),
          ratioBar(
            `serving, CPU a GiB, of createReadStream().pipe, ${clients} clients`,
            comparison.ratio(cpu, "spegel-ts", "createReadStream", clients),
            0.6
          )
        ]).flat(),
        ...ratioBar("small manifests, requests a second, of bare node:http", requests.ratio, 0.7, true)
      ]
    }
  })
