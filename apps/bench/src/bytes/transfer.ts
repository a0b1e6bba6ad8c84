/** The data planes alone, beside nginx: files to clients, and a peer's bytes to clients. */
import { fileURLToPath } from "node:url"
import * as Comparison from "./Comparison.ts"
import * as Content from "./Content.ts"
import type { Target } from "./Load.ts"
import * as Processes from "./Processes.ts"
import { cpu, largeSize, plan, ratioBar, type Result, withServers } from "./serve.ts"
import * as Servers from "./Servers.ts"

const server = fileURLToPath(new URL("TransferServer.ts", import.meta.url))

export const startPlane = (
  kind: "serve" | "relay",
  plane: "zero-copy" | "portable",
  address: Servers.Address,
  source: string
) =>
  Processes.start(
    process.execPath,
    [...process.execArgv, server, kind, plane, address.host, String(address.port), source],
    address
  )

export const transfer = (options: {
  readonly rounds: number
  readonly port: number
  readonly kind: "serve" | "relay"
}): Promise<Result> =>
  withServers(async (directory, started) => {
    if (Servers.nginxPath === undefined) {
      throw new Error("nginx is the yardstick: install it (apt-get install nginx-light)")
    }
    const { kind, port } = options
    const large = await Content.blob(directory, largeSize)
    const small = await Content.blob(directory, 1024)
    const at = (index: number) => ({ host: "127.8.0.1", port: port + 10 * index })
    const files = await started(Servers.nginxFiles(directory, at(0)))
    const source = kind === "serve" ? Content.files(directory) : `http://${at(0).host}:${at(0).port}`
    const target = async (
      name: string,
      address: Servers.Address,
      running: Promise<Processes.Running>
    ): Promise<Target> => ({
      name,
      pid: (await started(running)).pid,
      ...address,
      path: large.path,
      smallPath: small.path,
      fields: []
    })
    const nginx = kind === "serve" ? Servers.nginxFiles(directory, at(1)) : Servers.nginxProxy(directory, at(1), at(0))
    const targets = [
      await target("nginx", at(1), nginx),
      await target("zero-copy", at(2), startPlane(kind, "zero-copy", at(2), source)),
      await target("portable", at(3), startPlane(kind, "portable", at(3), source))
    ]
    const pids = [files.pid, ...targets.flatMap(({ pid }) => pid ?? [])]
    const { figures, otherCpus, ratio } = await Comparison.run(targets, plan(options.rounds), pids)
    const yardstick = kind === "serve" ? "nginx with sendfile" : "nginx's buffered proxy"
    const bounds = kind === "serve" ? { "zero-copy": 1.25 } : { "zero-copy": 0.7, portable: 1.2 }
    return {
      figures,
      otherCpus,
      bars: Object.entries(bounds).flatMap(([plane, bound]) =>
        [1, 8].flatMap((clients) =>
          ratioBar(
            `${plane} ${kind}, CPU a GiB, of ${yardstick}, ${clients} clients`,
            ratio(cpu, plane, "nginx", clients),
            bound
          )
        )
      )
    }
  })
