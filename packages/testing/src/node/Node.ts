/** A node: a real containerd, a mirror process, and the hosts.toml files that make the first ask the second. */
import { Effect, Schedule } from "effect"
import { readdir, stat } from "node:fs/promises"
import { join } from "node:path"
import * as ContainerdDaemon from "../containerd/ContainerdDaemon.ts"
import * as CriClient from "../containerd/CriClient.ts"
import type { CommandFailed } from "../process/Command.ts"
import { temporary } from "../TemporaryDirectory.ts"
import * as MirrorPorts from "./MirrorPorts.ts"
import * as SpegelProcess from "./SpegelProcess.ts"

export type Pull = Effect.Effect<string, CommandFailed | CriClient.CallFailed>

export interface NodeOptions {
  readonly programs?: ContainerdDaemon.ContainerdOptions["programs"]
  /** More of containerd's configuration. */
  readonly settings?: string
  /** Makes containerd's `config_path` of the directory of the mirror's hosts.toml files. Default: that directory. */
  readonly configPath?: (certs: string) => string
  readonly discardUnpackedLayers?: boolean
  /** Whether its mirror knows containerd's configuration file. */
  readonly showsConfig?: boolean
  /** More flags of `spegel registry`. */
  readonly registry?: ReadonlyArray<string>
  /** A descriptor for the log of its mirror. Default: the log is read. */
  readonly stderr?: number | "pipe"
  /** More flags of `spegel configuration`. */
  readonly configuration?: ReadonlyArray<string>
}

/** Starts node `index` (from 1) of a cluster whose nodes all use the same ports on addresses of their own. */
export const start = Effect.fnUntraced(
  function*(index: number, ports: MirrorPorts.MirrorPorts, upstream: string, options: NodeOptions = {}) {
    const directory = yield* temporary
    const certs = join(directory, "certs.d")
    const { configPath = (certs) => certs, discardUnpackedLayers = false, showsConfig = false } = options
    const containerd = yield* ContainerdDaemon.start({
      configPath: configPath(certs),
      discardUnpackedLayers,
      ...(options.programs === undefined ? {} : { programs: options.programs }),
      ...(options.settings === undefined ? {} : { settings: options.settings })
    })
    const address = `127.0.0.${index + 1}`
    const url = `http://${address}:${ports.registry}`

    const startMirror = SpegelProcess.start(
      [
        "registry",
        `--containerd-sock=${containerd.socket}`,
        `--containerd-content-path=${containerd.contentPath}`,
        `--containerd-registry-config-path=${certs}`,
        `--data-dir=${join(directory, "data")}`,
        ...MirrorPorts.flags(address, ports),
        "--bootstrap-kind=static",
        `--static-bootstrap-peers=127.0.0.2:${ports.router}`,
        ...(showsConfig ? [`--containerd-config=${join(containerd.directory, "config.toml")}`] : []),
        ...(options.registry ?? [])
      ],
      {},
      options.stderr
    )
    const mirror = yield* startMirror
    const configured = yield* SpegelProcess.run([
      "configuration",
      `--containerd-registry-config-path=${certs}`,
      `--mirrored-registries=http://${upstream}`,
      `--mirror-targets=${url}`,
      ...(options.configuration ?? [])
    ])
    if (configured.code !== 0) return yield* Effect.die(new Error(configured.stderr))
    yield* SpegelProcess.untilReady(url)

    return {
      address,
      url,
      metrics: `http://${address}:${ports.metrics}`,
      containerd,
      mirror,
      /** Starts its mirror again, after it was killed. */
      startMirror: Effect.tap(startMirror, () => SpegelProcess.untilReady(url)),
      /** The directory in which its containerd looks for hosts.toml files. */
      certs,
      pull: (image: string): Pull => containerd.ctr("images", "pull", "--hosts-dir", certs, image),
      /** Pulls without unpacking. */
      fetch: (image: string): Pull => containerd.ctr("content", "fetch", "--hosts-dir", certs, image),
      pullByCri: (image: string): Pull => CriClient.pullImage(containerd.socket, image),
      remove: (image: string) => containerd.ctr("images", "rm", "--sync", image)
    }
  }
)

export interface Node extends Effect.Success<ReturnType<typeof start>> {}

/** In bytes; manifests and configurations are smaller. */
const layerBytes = 1024 * 1024

/** Waits until the node's containerd has downloaded a part of a layer. */
export const untilPulling = (node: Node) => {
  const ingests = join(node.containerd.contentPath, "ingest")
  const largest = Effect.promise(async () => {
    const names = await readdir(ingests).catch(() => [])
    const sizes = names.map((name) => stat(join(ingests, name, "data")).then(({ size }) => size, () => 0))
    return Math.max(0, ...await Promise.all(sizes))
  })
  return largest.pipe(
    Effect.filterOrFail((bytes) => bytes > layerBytes, () => "not yet" as const),
    Effect.retry({ schedule: Schedule.spaced("2 millis"), times: 5000 })
  )
}
