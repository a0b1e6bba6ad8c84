/** A node of the herd: a real containerd and a mirror, on a host of their own. */
import type { ClusterKeyFile } from "@spegel-ts/testing/ClusterKeys"
import * as ContainerdDaemon from "@spegel-ts/testing/containerd/ContainerdDaemon"
import type * as ContainerdPackages from "@spegel-ts/testing/containerd/ContainerdPackages"
import * as CriClient from "@spegel-ts/testing/containerd/CriClient"
import type { RandomImage } from "@spegel-ts/testing/content/RandomImage"
import * as NetworkNamespace from "@spegel-ts/testing/network/NetworkNamespace"
import * as MirrorPorts from "@spegel-ts/testing/node/MirrorPorts"
import * as SpegelProcess from "@spegel-ts/testing/node/SpegelProcess"
import { run } from "@spegel-ts/testing/process/Command"
import * as Subprocess from "@spegel-ts/testing/process/Subprocess"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Effect } from "effect"
import { existsSync } from "node:fs"
import { open, readdir, stat } from "node:fs/promises"
import { join } from "node:path"
import { bundle } from "../Image.ts"
import * as Host from "./Host.ts"

/** Of all mirrors. */
export const ports = { registry: 5001, router: 5002, metrics: 5003 }

export interface HerdOptions {
  readonly programs: ContainerdPackages.Containerd
  readonly upstream: string
  readonly key: ClusterKeyFile
  /** Addresses of nodes whose routers this one joins through. Several, because each may be restarted. */
  readonly bootstrap: ReadonlyArray<string>
  /** Speed of its link in both directions, in bytes per second. */
  readonly link: number
}

export interface MirrorOptions {
  /** Further flags of `spegel registry`. */
  readonly flags: ReadonlyArray<string>
  /** The file for its log. */
  readonly log: string
  /** Whether it has the cluster key. Default: true. */
  readonly hasKey?: boolean
  /** Another bundle than this repository's. */
  readonly program?: string
  /** Flags of Node, and variables over those of this process. */
  readonly node?: { readonly flags: ReadonlyArray<string>; readonly environment: Readonly<Record<string, string>> }
}

const addressFlags = (address: string, bootstrap: ReadonlyArray<string>) => [
  ...MirrorPorts.flags(address, ports),
  "--bootstrap-kind=static",
  ...bootstrap.map((other) => `--static-bootstrap-peers=${other}:${ports.router}`)
]

type Daemon = Effect.Success<ReturnType<typeof ContainerdDaemon.start>>

/** Starts node `number`, without its mirror. */
export const start = Effect.fnUntraced(
  function*(number: number, { bootstrap, key, link, programs, upstream }: HerdOptions) {
    const host = yield* Host.make(number, { up: link, down: link })
    const directory = yield* temporary
    const certs = join(directory, "certs.d")
    const { namespace, address } = host
    const containerd = yield* ContainerdDaemon.start({ programs, configPath: certs, namespace })
    const registry = `http://${address}:${ports.registry}`
    const name = `node-${number}`
    const trust = [key.flag, `--node-name=${name}`]
    const token = key.tokenOf(name)
    yield* run(process.execPath, [
      bundle,
      "configuration",
      `--containerd-registry-config-path=${certs}`,
      `--mirrored-registries=http://${upstream}`,
      `--mirror-targets=${registry}`,
      ...trust
    ])

    return {
      name,
      address,
      namespace,
      /** Cuts it off from the network. */
      unplug: NetworkNamespace.ip("link", "set", Host.linkOf(number), "down"),
      plug: NetworkNamespace.ip("link", "set", Host.linkOf(number), "up"),
      containerd,
      /** Starts its mirror, and kills it with the scope. */
      startMirror: Effect.fnUntraced(function*({ flags, hasKey = true, log, node, program = bundle }: MirrorOptions) {
        const [command, ...args] = NetworkNamespace.enter(namespace)
        const stderr = yield* Effect.acquireRelease(
          Effect.promise(() => open(log, "w")),
          (file) => Effect.promise(() => file.close())
        )
        const child = yield* Subprocess.start(command, [
          ...args,
          process.execPath,
          ...(node?.flags ?? []),
          program,
          "registry",
          `--containerd-sock=${containerd.socket}`,
          `--containerd-content-path=${containerd.contentPath}`,
          `--containerd-registry-config-path=${certs}`,
          `--data-dir=${join(directory, "data")}`,
          ...addressFlags(address, bootstrap),
          ...(hasKey ? trust : []),
          ...flags
        ], { stdio: ["ignore", "ignore", stderr.fd], env: { ...process.env, ...node?.environment } })
        yield* SpegelProcess.untilReady(registry)
        return child
      }),
      /** A debug page of its mirror. */
      debug: (page: "peers" | "pulls") =>
        Effect.tryPromise((signal) =>
          fetch(`http://${address}:${ports.metrics}/debug/${page}`, {
            headers: { authorization: `Bearer ${token}` },
            signal
          }).then((response): Promise<unknown> => response.json())
        ),
      /** Downloads an image without unpacking it, all layers at once. */
      pull: (image: string) => containerd.ctr("content", "fetch", "--hosts-dir", certs, image),
      /** Downloads and unpacks an image as the kubelet does. */
      pullByCri: (image: string) => CriClient.pullImage(containerd.socket, image),
      ...contentOf(containerd)
    }
  }
)

const blobPath = (contentPath: string, digest: string) => join(contentPath, "blobs", digest.replace(":", "/"))
const sizeOf = (path: string) => stat(path).then(({ size }) => size, () => 0)

const bytesOf = async (
  contentPath: string,
  descriptors: ReadonlyArray<{ readonly digest: string; readonly size: number }>
): Promise<number> => {
  const ingests = join(contentPath, "ingest")
  const names = await readdir(ingests).catch(() => [])
  const sizes = await Promise.all([
    ...names.map((name) => sizeOf(join(ingests, name, "data"))),
    ...descriptors.map(({ digest }) => sizeOf(blobPath(contentPath, digest)))
  ])
  return sizes.reduce((sum, size) => sum + size, 0)
}

/** The names of what a daemon has of a kind. */
const listed = (containerd: Daemon, kind: "images" | "leases") =>
  Effect.map(containerd.ctr(kind, "ls", "-q"), (lines) => lines.split("\n").filter((name) => name !== ""))

/** What a daemon has of images. */
const contentOf = (containerd: Daemon) => {
  const { contentPath } = containerd
  return {
    holds: ({ objects }: RandomImage) =>
      objects.every(({ descriptor }) => existsSync(blobPath(contentPath, descriptor.digest))),
    /** Bytes that it has of an image by now. */
    received: ({ objects }: RandomImage) => bytesOf(contentPath, objects.map(({ descriptor }) => descriptor)),
    /** How many downloads it has begun and not committed. */
    downloads: async () => (await readdir(join(contentPath, "ingest")).catch(() => [])).length,
    /** Removes all images, and the leases of clients that were killed. Whatever is left afterwards has leaked. */
    clear: Effect.forEach(
      ["leases", "images"] as const,
      (kind) =>
        Effect.flatMap(
          listed(containerd, kind),
          (names) => names.length === 0 ? Effect.void : containerd.ctr(kind, "rm", "--sync", ...names)
        ),
      { discard: true }
    )
  }
}

export type HerdNode = Effect.Success<ReturnType<typeof start>>
