/** The stores of nodes that are measured: a real containerd, or an OCI image layout. */
import { execFile, spawn } from "node:child_process"
import { createHash } from "node:crypto"
import { mkdir, rename, rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { promisify } from "node:util"
import { untilDone } from "../Waiting.ts"

export type Kind = "containerd" | "layout"

export interface Store {
  readonly kind: Kind
  /** The daemon's flags. */
  readonly flags: ReadonlyArray<string>
  /** Adds a blob as the owner of the store does; gives its digest once the store holds it. */
  readonly add: (text: string) => Promise<string>
  readonly close: () => Promise<void>
}

const digestOf = (text: string) => createHash("sha256").update(text).digest("hex")

const filesAtOnce = 32
const startLimitMillis = 30_000

/** Writes blobs as the owner of a store leaves them: complete and read-only. Gives their digests. */
const fill = async (blobs: string, count: number): Promise<ReadonlyArray<string>> => {
  await mkdir(blobs, { recursive: true })
  const names = Array.from({ length: count }, (_, at) => digestOf(`held ${at}`))
  const work = names.entries()
  const write = async () => {
    for (const [at, name] of work) await writeFile(join(blobs, name), `held ${at}`, { mode: 0o444 })
  }
  await Promise.all(Array.from({ length: filesAtOnce }, write))
  return names.map((name) => `sha256:${name}`)
}

const layout = (directory: string): Store => {
  const blobs = join(directory, "blobs", "sha256")
  return {
    kind: "layout",
    flags: [`--store=oci-layout:${directory}`],
    add: async (text) => {
      const name = digestOf(text)
      await writeFile(join(directory, name), text, { mode: 0o444 })
      await rename(join(directory, name), join(blobs, name))
      return `sha256:${name}`
    },
    close: async () => undefined
  }
}

/**
 * The garbage collector never runs here: it would remove the blobs, to which no image refers. The CRI plugin is on, as on a
 * Kubernetes node.
 */
const configuration = `version = 2
oom_score = 0
[plugins."io.containerd.gc.v1.scheduler"]
deletion_threshold = 0
mutation_threshold = 0
startup_delay = "1000h"
[plugins."io.containerd.grpc.v1.cri"]
stream_server_port = "0"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
`

const contentOf = (directory: string) => join(directory, "root", "io.containerd.content.v1.content")

const containerd = async (directory: string): Promise<Store> => {
  const socket = join(directory, "containerd.sock")
  const settings = join(directory, "config.toml")
  await writeFile(settings, configuration)
  const paths = ["--config", settings, "--root", join(directory, "root"), "--state", join(directory, "state")]
  const daemon = spawn("containerd", [...paths, "--address", socket, "--log-level", "error"], { stdio: "ignore" })
  const ended = new Promise<void>((resolve) => daemon.once("close", () => resolve()).once("error", () => resolve()))
  const close = async () => {
    daemon.kill("SIGKILL")
    await ended
  }
  const ctr = ["--address", socket, "--namespace", "k8s.io"]
  const answers = () => promisify(execFile)("ctr", [...ctr, "version"]).then(() => true, () => false)
  await untilDone(
    answers,
    startLimitMillis,
    "containerd does not start: it has to be installed, and needs root"
  ).catch(async (error: unknown) => {
    await close()
    throw error
  })
  return {
    kind: "containerd",
    flags: [`--containerd-sock=${socket}`, `--containerd-content-path=${contentOf(directory)}`],
    add: async (text) => {
      const digest = `sha256:${digestOf(text)}`
      const ingest = promisify(execFile)("ctr", [
        ...ctr,
        "content",
        "ingest",
        `--expected-digest=${digest}`,
        `--expected-size=${text.length}`,
        `layer-${digest}`
      ])
      ingest.child.stdin?.end(text)
      await ingest
      return digest
    },
    close
  }
}

/** Makes a store with `count` blobs, and gives their digests. */
export const make = async (
  kind: Kind,
  directory: string,
  count: number
): Promise<{ readonly store: Store; readonly held: ReadonlyArray<string> }> => {
  await rm(directory, { recursive: true, force: true })
  const root = kind === "layout" ? directory : contentOf(directory)
  const held = await fill(join(root, "blobs", "sha256"), count)
  if (kind === "layout") await writeFile(join(root, "oci-layout"), JSON.stringify({ imageLayoutVersion: "1.0.0" }))
  return { held, store: await (kind === "layout" ? layout(directory) : containerd(directory)) }
}
